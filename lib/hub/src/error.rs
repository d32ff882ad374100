//! Failed requests as errors: HTTP statuses, the Hub's error headers, and network failures.

use std::time::Duration;

use mlxk_core::{Error, Kind};
use ureq::Body;
use ureq::http::{HeaderMap, Response};

/// Result of one attempt, whose failure states whether another attempt can succeed.
pub type Attempt<T> = Result<T, Failure>;

/// Failure of one attempt.
#[derive(Debug)]
pub struct Failure {
    /// Error to report if there is no further attempt.
    pub error: Box<Error>,
    /// True if the same request may succeed later.
    pub transient: bool,
    /// Delay that the server requires before the next attempt.
    pub retry_after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error: Box::new(error), transient: false, retry_after: None }
    }
}

impl Failure {
    /// Failure with `message` that another attempt may not meet.
    pub fn transient(message: &str) -> Failure {
        let error = Box::new(Error::new(Kind::DownloadFailed, "", message));
        Failure { error, transient: true, retry_after: None }
    }
}

/// Longest error body that is read, in bytes.
const MAX_BODY: u64 = 4096;

/// Longest `Retry-After` in seconds; larger values are cut to it, so that no sum overflows.
const MAX_RETRY_AFTER: u64 = 1 << 20;

/// Failure for an error response of the Hub.
pub fn from_hub(mut response: Response<Body>) -> Failure {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let code = header("x-error-code").unwrap_or_default().to_owned();
    let said = header("x-error-message").map(str::to_owned);
    let retry_after = retry_after(response.headers());
    let said = said.or_else(|| message_in(&mut response));
    let transient = matches!(status, 408 | 425 | 429 | 500 | 502..=504);
    let error = Box::new(describe(status, &code, said.as_deref().unwrap_or("")));
    Failure { error, transient, retry_after }
}

/// Failure for an error response of the storage at `host` that the Hub redirected to.
///
/// Every status is transient, also 403 for an expired signature; only a missing file (404, 410) is
/// final.
pub fn from_storage(response: Response<Body>, host: &str) -> Failure {
    let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
    let missing = matches!(status, 404 | 410);
    let message = match missing {
        true => format!("{host}, where the Hub keeps the file, has none (status {status})"),
        false => format!("{host}, where the Hub keeps the file, answers with status {status}"),
    };
    let error = Box::new(Error::new(Kind::DownloadFailed, "", message));
    Failure { error, transient: !missing, retry_after }
}

/// Error for a status; `code` is the Hub's `x-error-code`, `said` the server's own message.
fn describe(status: u16, code: &str, said: &str) -> Error {
    let error = |kind, message: &str| Error::new(kind, "", message);
    let login = "set HF_TOKEN, or run `hf auth login`";
    match (status, code) {
        (_, "GatedRepo") => {
            error(Kind::AccessDenied, "gated: the Hub gives it to those who were granted access")
                .hint(format!("ask for access on the model's page; {login}"))
        }
        (_, "RevisionNotFound") => error(Kind::HashNotFound, "no such revision on the Hub")
            .hint("a branch, a tag, or all 40 digits of a commit"),
        (_, "EntryNotFound") => error(Kind::DownloadFailed, "no such file on the Hub"),
        (_, "RepoNotFound") | (404, _) => {
            error(Kind::RepoNotFound, "no such model on the Hub, or a private one")
                .hint(format!("check the name; {login}"))
        }
        (401, _) if said.contains("credentials") => {
            error(Kind::AccessDenied, "the Hub does not accept the token").hint(login)
        }
        (401, _) => error(Kind::AccessDenied, "no such model on the Hub, or a private one")
            .hint(format!("check the name; {login}")),
        (403, _) if said.is_empty() => {
            error(Kind::AccessDenied, "the Hub denies access").hint(login)
        }
        (403, _) => {
            error(Kind::AccessDenied, &format!("the Hub denies access: {said}")).hint(login)
        }
        (429, _) => error(Kind::DownloadFailed, "the Hub is asked too often (status 429)")
            .hint("try again later; those who are logged in may ask more often"),
        _ if said.is_empty() => {
            error(Kind::DownloadFailed, &format!("the Hub answers with status {status}"))
        }
        _ => error(Kind::DownloadFailed, &format!("the Hub answers with status {status}: {said}")),
    }
}

/// Message of a body of the form `{"error": "..."}`.
fn message_in(response: &mut Response<Body>) -> Option<String> {
    let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec().ok()?;
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    body.get("error")?.as_str().map(str::to_owned)
}

/// Delay of `Retry-After` in seconds, or of an exhausted limit such as `RateLimit: "api";r=0;t=55`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = |text: &str| text.trim().parse::<u64>().ok();
    let limit = header("ratelimit").and_then(|limit| {
        let field = |key: &str| {
            limit.split(';').find_map(|field| field.trim().strip_prefix(key)?.parse().ok())
        };
        field("t=").filter(|_| field("r=") == Some(0)).map(|left: u64| left + 1)
    });
    let delay = header("retry-after").and_then(seconds).or(limit)?;
    Some(Duration::from_secs(delay.min(MAX_RETRY_AFTER)))
}

/// Failure of a request to `host` that got no complete response.
pub fn from_network(error: ureq::Error, host: &str) -> Failure {
    let (transient, message) = match &error {
        ureq::Error::Timeout(_) => (true, format!("{host} does not respond")),
        ureq::Error::HostNotFound => (true, format!("no host {host}")),
        ureq::Error::Io(e) => (true, format!("{host}: {}", e.to_string().to_lowercase())),
        ureq::Error::ConnectionFailed => (true, format!("{host} cannot be reached")),
        ureq::Error::Protocol(e) => (true, format!("{host} does not speak HTTP: {e}")),
        ureq::Error::ConnectProxyFailed(why) => (false, format!("{host}: the {why}")),
        ureq::Error::Decompress(_, e) => (true, format!("{host} sends what is not gzip: {e}")),
        ureq::Error::Other(e) => (false, format!("{host}: {e}")),
        ureq::Error::Rustls(e) => (false, format!("{host} cannot be trusted: {e}")),
        e => (false, format!("{host}: {e}")),
    };
    let error = Error::new(Kind::DownloadFailed, "", message).caused_by(error);
    Failure { error: Box::new(error), transient, retry_after: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    #[test]
    fn statuses_map_to_error_kinds() {
        let kind = |status, code| describe(status, code, "").kind;
        assert_eq!(kind(403, "GatedRepo"), Kind::AccessDenied);
        assert_eq!(kind(401, "GatedRepo"), Kind::AccessDenied);
        assert_eq!(kind(401, ""), Kind::AccessDenied);
        assert_eq!(kind(404, "RepoNotFound"), Kind::RepoNotFound);
        assert_eq!(kind(404, "RevisionNotFound"), Kind::HashNotFound);
        assert_eq!(kind(404, "EntryNotFound"), Kind::DownloadFailed);
        assert_eq!(kind(500, ""), Kind::DownloadFailed);
        assert!(describe(400, "", "bad thing").message.ends_with("400: bad thing"));
    }

    #[test]
    fn retry_after_and_ratelimit_headers_are_read() {
        let wait = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("retry-after", "120"), Some(120));
        assert_eq!(wait("retry-after", "99999999999999999999"), None);
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(56));
        assert_eq!(wait("ratelimit", "\"api\";r=3;t=55"), None);
    }
}
