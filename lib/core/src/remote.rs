//! Where the Hub is and how to speak to it: plain settings, made by programs from their environment.

use std::fmt;
use std::time::Duration;

/// The Hub as this user sees it. The variables named are those of huggingface_hub.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The address without a slash at its end, `HF_ENDPOINT`.
    pub endpoint: String,
    /// Who is asking, `HF_TOKEN` or the file that a login leaves; nobody in particular without.
    pub token: Option<Token>,
    /// Nothing may be asked, `HF_HUB_OFFLINE`.
    pub offline: bool,
    /// Large files may come by the protocol of Xet, unless `HF_HUB_DISABLE_XET`.
    pub xet: bool,
    /// Large files are shared between the models of the cache, unless `HF_HUB_DISABLE_SHARED_BLOBS`.
    pub shared_blobs: bool,
    /// How long a silent server is listened to, `HF_HUB_DOWNLOAD_TIMEOUT`.
    pub silence: Duration,
    /// The way out, `HTTPS_PROXY` and its kin.
    pub proxy: Option<Proxy>,
}

/// A proxy for HTTP.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its address.
    pub url: String,
    /// The hosts that are spoken to without it, `NO_PROXY`.
    pub except: Vec<String>,
}

/// A secret of the user; it shows itself to nobody who prints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`; none if there is nothing but white space in it.
    pub fn new(text: &str) -> Option<Token> {
        let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Token(text.to_owned()))
    }

    /// The secret itself, to be sent to the Hub and nowhere else.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
