//! Bodies of requests, read within limits of size and time, and JSON bodies of responses.

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use mlxk_core::{Error, Kind};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::state::{App, Settings};

/// Size of a body, in bytes, from which parsing it inline would delay other clients.
const LARGE: usize = 64 << 10;

/// Reads a body and passes its fields to `parse`, on a blocking thread if the body is large.
///
/// # Errors
/// If the body is too large, too late, broken off or not a JSON object, or if `parse` fails.
pub async fn read<T: Send + 'static>(
    app: &App,
    body: Body,
    parse: impl FnOnce(Fields) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let bytes = receive(&app.settings, body).await?;
    let (lenient, large) = (app.settings.lenient, bytes.len() > LARGE);
    let parse = move || parse(Fields::parse(&bytes, lenient)?);
    if large { blocking(parse).await } else { parse() }
}

/// Runs `work` on a blocking thread, which delays no other client.
///
/// # Errors
/// If `work` fails.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |e: JoinError| ApiError::from(Error::new(Kind::Internal, "", e.to_string()));
    spawn_blocking(work).await.map_err(failed)?
}

/// A response whose body is a JSON document: a value, or the text of one.
pub fn json(document: &impl ToString) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

/// All bytes of a body, if they come within the limits of `settings`.
async fn receive(settings: &Settings, body: Body) -> Result<Bytes, ApiError> {
    let (limit, time) = (settings.max_body, settings.times.body);
    let large = || {
        let message = format!("the body has more than {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    };
    let broken = |e: axum::Error| match e.into_inner().is::<LengthLimitError>() {
        true => large(),
        false => ApiError::invalid("the body breaks off, or is not framed as HTTP has it"),
    };
    // A Content-Length above the limit is refused before anything is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(large());
    }
    let late = |_| {
        let message = format!("no body within {} seconds", time.as_secs_f64());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "validation_error", message)
    };
    timeout(time, to_bytes(body, limit)).await.map_err(late)?.map_err(broken)
}
