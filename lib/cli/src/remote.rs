//! Configuration of the Hub, from the environment: the only reader of the network variables.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxk_core::remote::{Proxy, Remote, Token};
use mlxk_core::{Error, Result};

use crate::places::places;

/// The default URL of the Hub.
const ENDPOINT: &str = "https://huggingface.co";

/// The default timeout for data from the server, in seconds.
const TIMEOUT: u64 = 10;

/// The Hub configuration of this process's environment; variables mean what they mean to
/// huggingface_hub.
pub fn remote() -> Result<Remote> {
    let variable = |name: &str| env::var_os(name);
    let token = match token_in(&variable) {
        None if !is_true(&variable, "HF_HUB_DISABLE_IMPLICIT_TOKEN") => token_file(&variable)?,
        token => token,
    };
    Ok(Remote { token, ..from(variable) })
}

fn from(variable: impl Fn(&str) -> Option<OsString>) -> Remote {
    let endpoint = text(&variable, "HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
    let offline = offline.into_iter().find(|name| text(&variable, name).is_some());
    let seconds = text(&variable, "HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok());
    Remote {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        token: token_in(&variable),
        offline: offline.is_some_and(|name| is_true(&variable, name)),
        xet: !is_true(&variable, "HF_HUB_DISABLE_XET"),
        shared_blobs: !is_true(&variable, "HF_HUB_DISABLE_SHARED_BLOBS"),
        timeout: Duration::from_secs(seconds.filter(|s| *s > 0).unwrap_or(TIMEOUT)),
        proxy: proxy(&variable),
    }
}

fn token_in(variable: &impl Fn(&str) -> Option<OsString>) -> Option<Token> {
    let names = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    Token::new(&names.into_iter().find_map(|name| text(variable, name))?)
}

/// The token that `hf auth login` stored in a file.
fn token_file(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Option<Token>> {
    let path = match variable("HF_TOKEN_PATH").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => places()?.root.join("token"),
    };
    read_token(&path)
}

fn read_token(path: &Path) -> Result<Option<Token>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Token::new(&text)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(e) => Err(Error::io(path, e)),
    }
}

fn proxy(variable: &impl Fn(&str) -> Option<OsString>) -> Option<Proxy> {
    let names =
        ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
    let url = names.into_iter().find_map(|name| text(variable, name))?;
    let except = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| text(variable, name));
    let except = except.unwrap_or_default();
    Some(Proxy { url, except: except.split(',').map(|host| host.trim().to_owned()).collect() })
}

fn is_true(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> bool {
    let value = text(variable, name).unwrap_or_default().to_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&&*value)
}

/// The value of a variable; `None` if it is empty or not UTF-8.
fn text(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<String> {
    variable(name)?.into_string().ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(variables: &[(&str, &str)]) -> Remote {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        from(|name| find(name).map(|(_, value)| value.into()))
    }

    #[test]
    fn nothing_set_means_the_hub_of_everybody() {
        let remote = remote(&[("HF_ENDPOINT", ""), ("HF_HUB_OFFLINE", "0")]);
        assert_eq!(remote.endpoint, "https://huggingface.co");
        assert!(remote.token.is_none() && remote.proxy.is_none());
        assert!(!remote.offline && remote.xet && remote.shared_blobs);
        assert_eq!(remote.timeout, Duration::from_secs(10));
    }

    #[test]
    fn variables_mean_what_they_mean_to_huggingface_hub() {
        let remote = remote(&[
            ("HF_ENDPOINT", "http://localhost:1/"),
            ("HF_TOKEN", " hf_x\n"),
            ("TRANSFORMERS_OFFLINE", "yes"),
            ("HF_HUB_DISABLE_XET", "1"),
            ("HF_HUB_DISABLE_SHARED_BLOBS", "on"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "3"),
            ("https_proxy", "http://proxy:8080"),
            ("NO_PROXY", "localhost, .local"),
        ]);
        assert_eq!(remote.endpoint, "http://localhost:1");
        assert_eq!(remote.token.as_ref().map(Token::secret), Some("hf_x"));
        assert!(remote.offline && !remote.xet && !remote.shared_blobs);
        assert_eq!(remote.timeout, Duration::from_secs(3));
        assert_eq!(remote.proxy.unwrap().except, ["localhost", ".local"]);
        assert!(!format!("{:?}", remote.token).contains("hf_x"), "a token is never printed");
    }

    #[test]
    fn a_login_leaves_its_token_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert_eq!(read_token(&path).unwrap(), None);
        fs::write(&path, "hf_y\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), Token::new("hf_y"));
    }
}
