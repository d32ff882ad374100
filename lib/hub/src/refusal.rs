//! What went wrong with a request: the Hub's statuses and headers, and the network's failures, as errors.

use std::time::Duration;

use mlxk_core::{Error, Kind};
use ureq::Body;
use ureq::http::{HeaderMap, Response};

/// A result that may be worth another try.
pub type Attempt<T> = Result<T, Failure>;

/// A request that failed, and whether trying again can help.
#[derive(Debug)]
pub struct Failure {
    /// The error, if it is the last attempt.
    pub error: Box<Error>,
    /// True if the same request may succeed later.
    pub transient: bool,
    /// How long the server asks to wait.
    pub wait: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error: Box::new(error), transient: false, wait: None }
    }
}

/// More than a server has to say about a failure.
const LONGEST_MESSAGE: u64 = 4096;

/// The longest that is believed of `Retry-After`, so that no sum overflows.
const LONGEST_WAIT: u64 = 1 << 20;

/// Why a request was not answered with success.
pub fn of_status(mut response: Response<Body>) -> Failure {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let code = header("x-error-code").unwrap_or_default().to_owned();
    let said = header("x-error-message").map(str::to_owned);
    let wait = wait_asked(response.headers());
    let said = said.or_else(|| message_in(&mut response));
    let transient = matches!(status, 408 | 425 | 429 | 500 | 502..=504);
    let error = Box::new(describe(status, &code, said.as_deref().unwrap_or("")));
    Failure { error, transient, wait }
}

/// Why the storage at `host`, where the Hub redirected to, did not answer with success: such as one
/// that has not been told in time, or no longer, who may come. What it has not, it will not have soon.
pub fn of_storage(response: Response<Body>, host: &str) -> Failure {
    let (status, wait) = (response.status().as_u16(), wait_asked(response.headers()));
    let missing = matches!(status, 404 | 410);
    let message = match missing {
        true => format!("{host}, where the Hub keeps the file, has none (status {status})"),
        false => format!("{host}, where the Hub keeps the file, answers with status {status}"),
    };
    let error = Box::new(Error::new(Kind::DownloadFailed, "", message));
    Failure { error, transient: !missing, wait }
}

/// The error for a status; `said` is what the server says itself.
fn describe(status: u16, code: &str, said: &str) -> Error {
    let error = |kind, message: &str| Error::new(kind, "", message);
    let login = "HF_TOKEN, or `hf auth login`, says who you are";
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

/// What the body says, if it is the Hub's `{"error": "..."}`.
fn message_in(response: &mut Response<Body>) -> Option<String> {
    let body = response.body_mut().with_config().limit(LONGEST_MESSAGE).read_to_vec().ok()?;
    let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
    body.get("error")?.as_str().map(str::to_owned)
}

/// `Retry-After` in seconds, or the time left in a `RateLimit: "api";r=0;t=55` that is used up.
fn wait_asked(headers: &HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = |text: &str| text.trim().parse::<u64>().ok();
    let limit = header("ratelimit").and_then(|limit| {
        let part = |key: &str| {
            limit.split(';').find_map(|part| part.trim().strip_prefix(key)?.parse().ok())
        };
        part("t=").filter(|_| part("r=") == Some(0)).map(|left: u64| left + 1)
    });
    let wait = header("retry-after").and_then(seconds).or(limit)?;
    Some(Duration::from_secs(wait.min(LONGEST_WAIT)))
}

/// Why there was no answer, or not a whole one.
pub fn of_network(error: ureq::Error, host: &str) -> Failure {
    let (transient, message) = match &error {
        ureq::Error::Timeout(_) => (true, format!("{host} is silent")),
        ureq::Error::HostNotFound => (true, format!("no host {host}")),
        ureq::Error::Io(e) => (true, format!("{host}: {}", e.to_string().to_lowercase())),
        ureq::Error::ConnectionFailed => (true, format!("{host} cannot be reached")),
        ureq::Error::Protocol(e) => (true, format!("{host} does not speak HTTP: {e}")),
        ureq::Error::Rustls(e) => (false, format!("{host} cannot be trusted: {e}")),
        e => (false, format!("{host}: {e}")),
    };
    let error = Error::new(Kind::DownloadFailed, "", message).caused_by(error);
    Failure { error: Box::new(error), transient, wait: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    #[test]
    fn statuses_have_their_kind() {
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
    fn a_server_may_ask_for_time() {
        let wait = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            wait_asked(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("retry-after", "120"), Some(120));
        assert_eq!(wait("retry-after", "99999999999999999999"), None);
        assert_eq!(wait("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"), None);
        assert_eq!(wait("ratelimit", "\"api\";r=0;t=55"), Some(56));
        assert_eq!(wait("ratelimit", "\"api\";r=3;t=55"), None);
    }
}
