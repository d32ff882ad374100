//! Why a request is not answered: the one place where an error becomes a status of HTTP.

use axum::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mlxk_core::{Error, Kind};
use serde_json::{Value, json};

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The status of HTTP.
    pub status: StatusCode,
    /// The type in the body.
    pub kind: &'static str,
    /// What is wrong.
    pub message: String,
    /// The field concerned.
    pub param: Option<String>,
}

/// Seconds after which it is worth to ask again.
pub const RETRY_AFTER: u64 = 1;

impl Refusal {
    /// A refusal that names no field.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { status, kind, message: message.into(), param: None }
    }

    /// That a request means nothing.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        let message = message.into();
        let param = named(&message);
        Refusal { param, ..Refusal::new(StatusCode::BAD_REQUEST, "validation_error", message) }
    }

    /// That a field is not what it has to be.
    pub fn wrong(field: &str, what: &str) -> Refusal {
        Refusal::invalid(format!("`{field}` is not {what}"))
    }

    /// Whether the same request may be answered later.
    pub fn retryable(&self) -> bool {
        matches!(self.status.as_u16(), 429 | 502..=504)
    }

    /// The body in OpenAI's form, with the fields that mlx-knife's clients read.
    pub fn openai(&self, id: &str) -> Value {
        json!({
            "status": "error",
            "error": {
                "type": self.kind,
                "message": self.message,
                "param": self.param,
                "code": self.kind,
                "retryable": self.retryable(),
            },
            "request_id": id,
        })
    }

    /// The body in Anthropic's form.
    pub fn anthropic(&self, id: &str) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            400..500 => "invalid_request_error",
            _ => "api_error",
        };
        json!({
            "type": "error",
            "error": {"type": kind, "message": self.message},
            "request_id": id,
        })
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let status = match error.kind {
            Kind::Validation | Kind::AmbiguousMatch | Kind::ContextLengthExceeded => 400,
            Kind::AccessDenied | Kind::PermissionDenied => 403,
            Kind::ModelNotFound | Kind::HashNotFound | Kind::Unhealthy => 404,
            // A template that cannot take a conversation is known only when it is tried.
            Kind::CapabilityNotSupported | Kind::InvalidModel => 422,
            Kind::QueueFull => 429,
            Kind::RuntimeIncompatible | Kind::NotImplemented => 501,
            Kind::ServerShutdown => 503,
            Kind::InsufficientMemory => 507,
            _ => 500,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut message = without_paths(&error.to_string());
        let hint = match error.kind {
            Kind::ModelNotFound => Some("GET /v1/models lists them"),
            _ => error.hint.as_deref(),
        };
        if let Some(hint) = hint {
            message = format!("{message} ({})", without_paths(hint));
        }
        let param = match error.kind {
            Kind::Validation => named(&message),
            Kind::AmbiguousMatch | Kind::ModelNotFound | Kind::HashNotFound => {
                Some("model".to_owned())
            }
            _ => None,
        };
        Refusal { status, kind: error.kind.name(), message, param }
    }
}

/// The answer gets its body where its request is known: in [`guard`](crate::middleware).
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Extension(self)).into_response()
    }
}

/// The field that a message begins with.
fn named(message: &str) -> Option<String> {
    let field = message.strip_prefix('`')?.split('`').next()?;
    Some(field.to_owned())
}

/// The text with the last part alone of each path of this machine; those of the server stay.
fn without_paths(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('/') {
        out += &rest[..at];
        rest = &rest[at..];
        let before = out.chars().next_back();
        let (kept, length) = if rest.starts_with("//") && before == Some(':') {
            // A file's address goes on with its path, others with a host.
            (if out.ends_with("file:") { "" } else { "//" }, 2)
        } else if before.is_some_and(within) || rest.starts_with("/v1/") || is_alone(rest) {
            ("/", 1)
        } else {
            path(rest, before)
        };
        out += kept;
        rest = &rest[length..];
    }
    out + rest
}

/// True if a `/` after this character is no beginning of a path.
fn within(c: char) -> bool {
    c.is_alphanumeric() || "._-~*%])}".contains(c)
}

/// True if nothing follows the `/` that a text begins with.
fn is_alone(text: &str) -> bool {
    text[1..].chars().next().is_none_or(char::is_whitespace)
}

/// The last part of the path that a text begins with, after the character `before`, and how long
/// it is at most. A quoted path ends with the quote. Others may have spaces: what is said after one
/// may be taken for its end, which loses a word rather than tell of a place.
fn path(text: &str, before: Option<char>) -> (&str, usize) {
    let quote = before.filter(|c| "\"'`".contains(*c));
    let end = match quote {
        Some(quote) => text.find(quote),
        None => text.find([':', ',', ';', '"', '(', ')', '<', '>', '\n']),
    };
    let whole = &text[..end.unwrap_or(text.len())];
    let next = if quote.is_none() { whole.find(" /") } else { None };
    let whole = &whole[..next.unwrap_or(whole.len())];
    let last = whole.rsplit('/').find(|part| !part.trim().is_empty());
    (last.unwrap_or("/"), whole.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_of_the_machine_is_told() {
        for (text, told) in [
            ("/home/me/hub/x.safetensors: cut short", "x.safetensors: cut short"),
            ("cannot read \"/home/me/My Models/a b\" (/home/me/c)", "cannot read \"a b\" (c)"),
            ("in '/home/me/it: a, b/c', says /etc/x", "in 'c', says x"),
            ("/home/me/My Big Models/x.json: no", "x.json: no"),
            ("file:///home/me/x is gone", "file:x is gone"),
            ("socket=/run/me/s and /srv/t, /home/me/u/", "socket=s and t, u"),
            ("GET /v1/models at http://127.0.0.1:8000/v1 has org/model", ""),
            ("either/or, 1 / 2, ~/x, ../y, a://", ""),
        ] {
            assert_eq!(without_paths(text), if told.is_empty() { text } else { told });
        }
        let error = Error::new(Kind::Execution, "/home/me/x", "gone").hint("see (/home/me/y)");
        assert_eq!(Refusal::from(error).message, "x: gone (see (y))");
    }
}
