//! Errors of the API: the status and the JSON body of a request that fails. The only place where an
//! error of the suite becomes a status of HTTP.

use axum::Extension;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mlxk_core::{Error, Kind};
use serde_json::{Value, json};

/// An error that a client sees.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The status of HTTP.
    pub status: StatusCode,
    /// The error's code, such as `validation_error`.
    pub kind: &'static str,
    /// The error's message, without paths of this machine.
    pub message: String,
    /// The invalid field of the body, if the error concerns a field.
    pub param: Option<String>,
}

impl ApiError {
    /// An error that concerns no field.
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, kind, message: message.into(), param: None }
    }

    /// A `validation_error` with status 400. A message that begins with a field's name in backticks
    /// concerns that field.
    pub fn invalid(message: impl Into<String>) -> ApiError {
        let message = message.into();
        let param = leading_field(&message);
        ApiError { param, ..ApiError::new(StatusCode::BAD_REQUEST, "validation_error", message) }
    }

    /// A `validation_error` about a field that is not the `expected`.
    pub fn invalid_field(field: &str, expected: &str) -> ApiError {
        ApiError::invalid(format!("`{field}` is not {expected}"))
    }

    /// True if the error concerns the tools as a whole, which the model has no place for.
    pub fn is_about_tools(&self) -> bool {
        self.kind == Kind::Validation.name() && self.param.as_deref() == Some("tools")
    }

    /// True if the same request may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self.status.as_u16(), 429 | 502..=504)
    }

    /// The error's body in OpenAI's format, with the additional fields that clients of mlx-knife
    /// read.
    pub fn openai(&self, id: &str) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({
            "status": "error",
            "error": {
                "type": kind,
                "message": self.message,
                "param": self.param,
                "code": self.kind,
                "retryable": self.retryable(),
            },
            "request_id": id,
        })
    }

    /// The error's body in Anthropic's format.
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

impl From<Error> for ApiError {
    fn from(error: Error) -> ApiError {
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
            Kind::Validation => leading_field(&message),
            Kind::AmbiguousMatch | Kind::ModelNotFound | Kind::HashNotFound => {
                Some("model".to_owned())
            }
            _ => None,
        };
        ApiError { status, kind: error.kind.name(), message, param }
    }
}

/// An error becomes a response with a status and no body, which carries the error as an extension.
/// The middleware writes the body, as it depends on the request's id and API.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Extension(self)).into_response()
    }
}

/// The name of the field, in backticks, with which a message begins.
fn leading_field(message: &str) -> Option<String> {
    let field = message.strip_prefix('`')?.split('`').next()?;
    Some(field.to_owned())
}

/// Shortens each path of this machine in a text to its last component; paths of the API stay.
fn without_paths(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('/') {
        out += &rest[..at];
        rest = &rest[at..];
        let before = out.chars().next_back();
        let (kept, length) = if rest.starts_with("//") && before == Some(':') {
            // A file URL continues with a path, other URLs with a host.
            (if out.ends_with("file:") { "" } else { "//" }, 2)
        } else if before.is_some_and(continues_path)
            || rest.starts_with("/v1/")
            || is_lone_slash(rest)
        {
            ("/", 1)
        } else {
            path(rest, before)
        };
        out += kept;
        rest = &rest[length..];
    }
    out + rest
}

/// True if a `/` after the character `c` does not start an absolute path. After a `#` it starts a JSON
/// pointer.
fn continues_path(c: char) -> bool {
    c.is_alphanumeric() || "._-~*%])}#".contains(c)
}

/// True if whitespace or nothing follows the `/` with which a text begins.
fn is_lone_slash(text: &str) -> bool {
    text[1..].chars().next().is_none_or(char::is_whitespace)
}

/// The last component of the path with which a text begins, and the path's length in bytes. A path
/// after a quotation mark, the character `before`, ends with that mark. An unquoted path may
/// contain spaces, so words after it may count as a part of it: losing a word is better than
/// showing a path.
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
    fn paths_of_the_machine_are_shortened() {
        for (text, expected) in [
            ("/home/me/hub/x.safetensors: cut short", "x.safetensors: cut short"),
            ("cannot read \"/home/me/My Models/a b\" (/home/me/c)", "cannot read \"a b\" (c)"),
            ("in '/home/me/it: a, b/c', says /etc/x", "in 'c', says x"),
            ("/home/me/My Big Models/x.json: no", "x.json: no"),
            ("file:///home/me/x is gone", "file:x is gone"),
            ("socket=/run/me/s and /srv/t, /home/me/u/", "socket=s and t, u"),
            ("GET /v1/models at http://127.0.0.1:8000/v1 has org/model", ""),
            ("either/or, 1 / 2, ~/x, ../y, a://, #/a/b", ""),
        ] {
            assert_eq!(without_paths(text), if expected.is_empty() { text } else { expected });
        }
        let error = Error::new(Kind::Execution, "/home/me/x", "gone").hint("see (/home/me/y)");
        assert_eq!(ApiError::from(error).message, "x: gone (see (y))");
    }
}
