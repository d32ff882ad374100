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
    /// The longest wait for an answer about a model's files, `HF_HUB_ETAG_TIMEOUT`.
    pub metadata_timeout: Duration,
    /// The proxies between this machine and the servers.
    pub proxies: Proxies,
}

/// The proxies of the environment; their debug output hides passwords.
#[derive(Clone, Default)]
pub struct Proxies {
    /// The URL of the proxy for `http` URLs, from `HTTP_PROXY` or else `ALL_PROXY`.
    pub http: Option<String>,
    /// The URL of the proxy for `https` URLs, from `HTTPS_PROXY` or else `ALL_PROXY`.
    pub https: Option<String>,
    /// The hosts to connect to directly, `NO_PROXY`.
    pub except: Vec<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("except", &self.except).finish_non_exhaustive()
    }
}

/// An access token; its debug output hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`; none if the text is blank.
    pub fn new(text: &str) -> Option<Token> {
        // A byte order mark is what an editor may put before a token in a file.
        let text = text.trim_start_matches('\u{feff}');
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
