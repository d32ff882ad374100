//! Directories of models, from the environment: the only reader of the cache and workspace
//! variables.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mlxk_core::Result;
use mlxk_core::store::Places;

use crate::expand::{expand, home};

/// The home directory of a user who has none, as of system accounts: nothing is there.
const NOWHERE: &str = "/nonexistent";

/// The places that this process's environment names, with the meaning huggingface_hub gives them:
/// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`; and `MLXK_WORKSPACE_HOME`.
pub fn places() -> Result<Places> {
    Ok(from(&|name| env::var_os(name), home()))
}

/// The directory of persistent state, `mlxk` in `XDG_STATE_HOME` or else in `~/.local/state`;
/// `None` if neither that variable nor the home directory is an absolute path.
pub fn state() -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let state = env::var_os("XDG_STATE_HOME").and_then(absolute);
    let state = state.or_else(|| Some(absolute(home()?)?.join(".local/state")));
    state.map(|state| state.join("mlxk"))
}

/// `path` with a leading `~` replaced by the home directory, if there is one.
pub fn at_home(path: &Path) -> PathBuf {
    expand(path.as_os_str(), home().as_deref(), &|_| None)
}

/// True if `MLXK2_STRICT_TEST_DELETE=1` restricts removal to the cache of a test.
pub fn only_tests() -> bool {
    env::var_os("MLXK2_STRICT_TEST_DELETE").is_some_and(|value| value == "1")
}

fn from(variable: &impl Fn(&str) -> Option<OsString>, home: Option<OsString>) -> Places {
    let path = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        Some(expand(&value, home.as_deref(), variable))
    };
    let root = path("HF_HOME").unwrap_or_else(|| {
        let cache = path("XDG_CACHE_HOME").unwrap_or_else(|| {
            Path::new(home.as_deref().unwrap_or(NOWHERE.as_ref())).join(".cache")
        });
        cache.join("huggingface")
    });
    let hub = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
    let hub = hub.unwrap_or_else(|| root.join("hub"));
    Places { root, hub, workspaces: path("MLXK_WORKSPACE_HOME") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)]) -> Places {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        let variable = |name: &str| find(name).map(|(_, value)| OsString::from(value));
        from(&variable, variable("HOME"))
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
    fn tildes_and_variables_are_expanded() {
        let places = places(&[
            ("HOME", "/h"),
            ("MLXK_WORKSPACE_HOME", "~/w"),
            ("HF_HOME", "~"),
            ("HF_HUB_CACHE", "$BIG/${ORG}"),
            ("BIG", "/big"),
            ("ORG", "o"),
        ]);
        assert_eq!(places.workspaces, Some("/h/w".into()));
        assert_eq!(places.root, PathBuf::from("/h"));
        assert_eq!(places.hub, PathBuf::from("/big/o"));
    }

    #[test]
    fn a_user_without_a_home_has_no_cache() {
        assert_eq!(places(&[]).hub, PathBuf::from("/nonexistent/.cache/huggingface/hub"));
        assert_eq!(places(&[("HF_HOME", "/f")]).hub, PathBuf::from("/f/hub"));
    }
}
