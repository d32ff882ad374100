//! The id of a request, which its response, its errors and its log entries carry.

use axum::http::{HeaderMap, HeaderName};
use uuid::Uuid;

/// The header with the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of an id that is accepted from a client, in bytes.
const MAX_LENGTH: usize = 128;

/// The id of a request.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

impl RequestId {
    /// The id that the client sent, or a new UUID if there is none or it is malformed.
    pub fn from_headers(headers: &HeaderMap) -> RequestId {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let valid = |id: &&str| {
            (1..=MAX_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let id = given.filter(valid).map(str::to_owned);
        RequestId(id.unwrap_or_else(|| Uuid::new_v4().to_string()))
    }
}
