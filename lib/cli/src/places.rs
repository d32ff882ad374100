//! Directories of models, from the environment: the only reader of the cache and workspace
//! variables.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mlxk_core::Result;
use mlxk_core::store::Places;

/// The places that this process's environment names, with the meaning huggingface_hub gives them:
/// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`; and `MLXK_WORKSPACE_HOME`.
pub fn places() -> Result<Places> {
    from(|name| env::var_os(name), env::home_dir())
}

/// The directory of persistent state, `mlxk` in `XDG_STATE_HOME` or else in `~/.local/state`;
/// `None` if neither that variable nor `HOME` is an absolute path.
pub fn state() -> Option<PathBuf> {
    let directory = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = directory("XDG_STATE_HOME");
    let state = state.or_else(|| Some(directory("HOME")?.join(".local/state")));
    state.map(|state| state.join("mlxk"))
}

/// `path` with a leading `~` replaced by `HOME`; unchanged if `HOME` is unset or empty.
pub fn at_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::var_os("HOME").filter(|home| !home.is_empty())) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.to_owned(),
    }
}

/// True if `MLXK2_STRICT_TEST_DELETE=1` restricts removal to the cache of a test.
pub fn only_tests() -> bool {
    env::var_os("MLXK2_STRICT_TEST_DELETE").is_some_and(|value| value == "1")
}

/// The places that `variable` names; `account` is the home directory of the user's account, which
/// stands in for `HOME`. Without any the home is `/`, as for a user without an account in a
/// container: a model that is named by its path needs no cache.
fn from(variable: impl Fn(&str) -> Option<OsString>, account: Option<PathBuf>) -> Result<Places> {
    let named = variable("HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let account = account.filter(|home| !home.as_os_str().is_empty());
    let home = named.or(account).unwrap_or_else(|| PathBuf::from("/"));
    let path = |name: &str| {
        let path = PathBuf::from(variable(name).filter(|value| !value.is_empty())?);
        Some(path.strip_prefix("~").map(|rest| home.join(rest)).unwrap_or(path))
    };
    let cache = || path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
    let root = path("HF_HOME").unwrap_or_else(|| cache().join("huggingface"));
    let hub = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
    let hub = hub.unwrap_or_else(|| root.join("hub"));
    Ok(Places { root, hub, workspaces: path("MLXK_WORKSPACE_HOME") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)]) -> Places {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        from(|name| find(name).map(|(_, value)| value.into()), None).unwrap()
    }

    #[test]
    fn the_nearest_variable_wins_and_an_empty_one_is_unset() {
        let hub = |variables: &[_]| places(variables).hub.display().to_string();
        assert_eq!(hub(&[("HOME", "/h")]), "/h/.cache/huggingface/hub");
        assert_eq!(hub(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(hub(&[("HF_HOME", "/f"), ("XDG_CACHE_HOME", "/x")]), "/f/hub");
        assert_eq!(hub(&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/u")]), "/u");
        let both = [("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/u"), ("HF_HUB_CACHE", "/c")];
        assert_eq!(hub(&both), "/c");
        assert_eq!(
            hub(&[("HOME", "/h"), ("HF_HOME", ""), ("HF_HUB_CACHE", "")]),
            hub(&[("HOME", "/h")])
        );
    }

    #[test]
    fn a_tilde_is_the_home_directory() {
        let places = places(&[("HOME", "/h"), ("MLXK_WORKSPACE_HOME", "~/w"), ("HF_HOME", "~")]);
        assert_eq!(places.workspaces, Some("/h/w".into()));
        assert_eq!(places.root, PathBuf::from("/h"));
    }

    #[test]
    fn without_a_home_the_account_has_one() {
        let hub = |account| from(|_| None, account).unwrap().hub;
        assert_eq!(hub(Some("/a".into())), PathBuf::from("/a/.cache/huggingface/hub"));
        assert_eq!(hub(None), PathBuf::from("/.cache/huggingface/hub"));
    }
}
