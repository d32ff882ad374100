//! Authentication by API keys.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The header in which Anthropic's clients send the key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// An API key, kept as its SHA-256 digest.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The key `text`; none if it is empty or has characters that a header cannot carry.
    pub fn new(text: &str) -> Option<Key> {
        let sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        sendable.then(|| Key(digest(text)))
    }

    /// True if this is the key with the digest `given`; takes the same time for all digests.
    fn matches(&self, given: &[u8; 32]) -> bool {
        self.0.ct_eq(given).into()
    }
}

/// Debug output of a key, which does not reveal it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// True if `headers` carry one of `keys`, as `Authorization: Bearer KEY` or `x-api-key: KEY`, or if
/// there are no keys.
pub fn authorized(keys: &[Key], headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let given = digest(bearer.or_else(|| text(API_KEY)).unwrap_or_default());
    // All keys are compared, so that the time does not tell which one matches.
    let matching = keys.iter().filter(|key| key.matches(&given)).count();
    keys.is_empty() || matching > 0
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
