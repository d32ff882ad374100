//! Settings of the connection to the Hub, which programs take from their environment.

use std::fmt;
use std::time::Duration;

/// The settings of the connection to the Hub; the environment variables are those of huggingface_hub.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The URL of the Hub without a trailing slash, `HF_ENDPOINT`.
    pub endpoint: String,
    /// The access token, from `HF_TOKEN` or the file that a login writes; none for anonymous requests.
    pub token: Option<Token>,
    /// True if no request may be sent, `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// True if large files may be transferred by the Xet protocol; `HF_HUB_DISABLE_XET` turns it off.
    pub xet: bool,
    /// True if models of the cache share large files; `HF_HUB_DISABLE_SHARED_BLOBS` turns it off.
    pub shared_blobs: bool,
    /// The longest wait for data from the server, `HF_HUB_DOWNLOAD_TIMEOUT`.
    pub timeout: Duration,
    /// The HTTP proxy, from `HTTPS_PROXY` and related variables.
    pub proxy: Option<Proxy>,
}

/// An HTTP proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The URL of the proxy.
    pub url: String,
    /// The hosts to connect to directly, `NO_PROXY`.
    pub except: Vec<String>,
}

/// An access token; its debug output hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`; none if the text is blank.
    pub fn new(text: &str) -> Option<Token> {
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Token(text.to_owned()))
    }

    /// The secret, which must be sent to the Hub only.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
