//! Configuration of the Hub, from the environment: the only reader of the network variables.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use mlxk_core::remote::{Proxies, Remote, Token};
use mlxk_core::{Error, Kind, Result};

use crate::expand::{expand, home};
use crate::places::places;

/// The default URL of the Hub.
const ENDPOINT: &str = "https://huggingface.co";

/// The default timeout for data from the server, in seconds.
const TIMEOUT: u64 = 10;

/// The Hub configuration of this process's environment; variables mean what they mean to
/// huggingface_hub.
///
/// # Errors
/// If a timeout is no number of seconds, or the token file cannot be read.
pub fn remote() -> Result<Remote> {
    let variable = |name: &str| env::var_os(name);
    let remote = from(&variable)?;
    match remote.token.is_none() && sends_token(&variable) {
        true => Ok(Remote { token: token_file(&variable)?, ..remote }),
        false => Ok(remote),
    }
}

fn from(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Remote> {
    let endpoint = text(variable, "HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];
    let offline = offline.into_iter().find(|name| text(variable, name).is_some());
    Ok(Remote {
        endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
        token: if sends_token(variable) { token_in(variable) } else { None },
        offline: offline.is_some_and(|name| is_true(variable, name)),
        xet: !is_true(variable, "HF_HUB_DISABLE_XET"),
        shared_blobs: !is_true(variable, "HF_HUB_DISABLE_SHARED_BLOBS"),
        timeout: seconds(variable, "HF_HUB_DOWNLOAD_TIMEOUT")?,
        metadata_timeout: seconds(variable, "HF_HUB_ETAG_TIMEOUT")?,
        proxies: proxies(variable),
    })
}

/// False if only an explicit token may be sent, and no program takes one.
fn sends_token(variable: &impl Fn(&str) -> Option<OsString>) -> bool {
    !is_true(variable, "HF_HUB_DISABLE_IMPLICIT_TOKEN")
}

fn token_in(variable: &impl Fn(&str) -> Option<OsString>) -> Option<Token> {
    let names = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    Token::new(&names.into_iter().find_map(|name| text(variable, name))?)
}

/// The token that `hf auth login` stored in a file.
fn token_file(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Option<Token>> {
    let path = match variable("HF_TOKEN_PATH").filter(|path| !path.is_empty()) {
        Some(path) => expand(&path, home().as_deref(), variable),
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

fn proxies(variable: &impl Fn(&str) -> Option<OsString>) -> Proxies {
    let proxy = |scheme: &str| {
        // In a CGI program the uppercase name holds a header of the request.
        let cgi = scheme == "HTTP" && variable("REQUEST_METHOD").is_some();
        either_case(variable, &format!("{scheme}_PROXY"), !cgi)
    };
    let all = proxy("ALL");
    let except = either_case(variable, "NO_PROXY", true).unwrap_or_default();
    Proxies {
        http: proxy("HTTP").or_else(|| all.clone()),
        https: proxy("HTTPS").or(all),
        except: except.split(',').map(|host| host.trim().to_owned()).collect(),
    }
}

/// The value of a variable whose lowercase name comes first, and unsets it if its value is empty;
/// `uppercase` is false if the other name does not count.
fn either_case(
    variable: &impl Fn(&str) -> Option<OsString>,
    name: &str,
    uppercase: bool,
) -> Option<String> {
    let lower = name.to_lowercase();
    let name = if variable(&lower).is_none() && uppercase { name } else { &lower };
    text(variable, name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// A timeout; zero is the default, as in huggingface_hub.
fn seconds(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Result<Duration> {
    let Some(value) = text(variable, name) else {
        return Ok(Duration::from_secs(TIMEOUT));
    };
    match value.trim().parse::<u32>() {
        Ok(0) => Ok(Duration::from_secs(TIMEOUT)),
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => {
            let message = format!("not a whole number of seconds: {value}");
            Err(Error::new(Kind::Validation, name, message))
        }
    }
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

    fn remote(variables: &[(&str, &str)]) -> Result<Remote> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        from(&|name: &str| find(name).map(|(_, value)| value.into()))
    }

    #[test]
    fn nothing_set_means_the_hub_of_everybody() {
        let remote = remote(&[("HF_ENDPOINT", ""), ("HF_HUB_OFFLINE", "0")]).unwrap();
        assert_eq!(remote.endpoint, "https://huggingface.co");
        assert!(remote.token.is_none() && !remote.offline && remote.xet && remote.shared_blobs);
        assert!(remote.proxies.http.is_none() && remote.proxies.https.is_none());
        assert_eq!([remote.timeout, remote.metadata_timeout], [Duration::from_secs(10); 2]);
    }

    #[test]
    fn variables_mean_what_they_mean_to_huggingface_hub() {
        let remote = remote(&[
            ("HF_ENDPOINT", "http://localhost:1/hub//"),
            ("HF_TOKEN", " hf_x\n"),
            ("TRANSFORMERS_OFFLINE", "yes"),
            ("HF_HUB_DISABLE_XET", "1"),
            ("HF_HUB_DISABLE_SHARED_BLOBS", "on"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "3"),
            ("HF_HUB_ETAG_TIMEOUT", "0"),
        ])
        .unwrap();
        assert_eq!(remote.endpoint, "http://localhost:1/hub");
        assert_eq!(remote.token.as_ref().map(Token::secret), Some("hf_x"));
        assert!(remote.offline && !remote.xet && !remote.shared_blobs);
        assert_eq!(remote.timeout, Duration::from_secs(3));
        assert_eq!(remote.metadata_timeout, Duration::from_secs(10));
        assert!(!format!("{remote:?}").contains("hf_x"), "a token is never printed");
    }

    #[test]
    fn a_timeout_that_is_no_number_is_refused() {
        for value in ["soon", "-1", "1.5"] {
            let error = remote(&[("HF_HUB_ETAG_TIMEOUT", value)]).unwrap_err();
            assert_eq!(error.subject, "HF_HUB_ETAG_TIMEOUT");
        }
    }

    #[test]
    fn no_token_is_sent_unasked_where_that_is_disabled() {
        let disabled = ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "True");
        assert!(remote(&[("HF_TOKEN", "hf_x"), disabled]).unwrap().token.is_none());
    }

    #[test]
    fn each_scheme_has_its_proxy_and_lowercase_wins() {
        let proxies = |variables: &[_]| remote(variables).unwrap().proxies;
        let both = [("HTTP_PROXY", "h"), ("https_proxy", " s "), ("ALL_PROXY", "a")];
        let found = proxies(&both);
        assert_eq!((found.http.as_deref(), found.https.as_deref()), (Some("h"), Some("s")));
        let found = proxies(&[("ALL_PROXY", "a"), ("NO_PROXY", "localhost, .local")]);
        assert_eq!((found.http.as_deref(), found.https.as_deref()), (Some("a"), Some("a")));
        assert_eq!(found.except, ["localhost", ".local"]);
        let found = proxies(&[("HTTPS_PROXY", "s"), ("https_proxy", ""), ("HTTP_PROXY", "h")]);
        assert_eq!((found.http.as_deref(), found.https), (Some("h"), None));
        let found = proxies(&[("HTTP_PROXY", "h"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(found.http, None);
        let found = proxies(&[("HTTP_PROXY", "http://u:secret@p")]);
        assert!(!format!("{found:?}").contains("secret"), "a password is never printed");
    }

    #[test]
    fn a_login_leaves_its_token_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert_eq!(read_token(&path).unwrap(), None);
        for text in ["hf_y\n", "\u{feff}hf_y\r\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_token(&path).unwrap(), Token::new("hf_y"));
        }
    }
}
