//! Bodies of requests, read within limits of size, memory and time, and JSON bodies of responses.

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mlxk_core::{Error, Kind};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::held::HeldBody;
use crate::state::{App, Settings};

/// Size of a body, in bytes, from which parsing it inline would delay other clients.
const LARGE: usize = 64 << 10;

/// Reads a body and passes its fields to `parse`, on a blocking thread if the body is large. Its
/// memory counts as long as the [`HeldBody`] exists.
///
/// # Errors
/// If the body is too large, too late, broken off or not a JSON object, if other bodies take all
/// memory, or if `parse` fails.
pub async fn read<T: Send + 'static>(
    app: &App,
    body: Body,
    parse: impl FnOnce(Fields, &mut HeldBody) -> Result<T, ApiError> + Send + 'static,
) -> Result<(T, HeldBody), ApiError> {
    let (bytes, mut held) = bytes(app, body).await?;
    let (lenient, large) = (app.settings.lenient, bytes.len() > LARGE);
    let parse = move || {
        let fields = Fields::parse(&bytes, lenient)?;
        drop(bytes);
        Ok((parse(fields, &mut held)?, held))
    };
    if large { blocking(parse).await } else { parse() }
}

/// Reads the bytes of a body. Their memory counts as long as the [`HeldBody`] exists.
///
/// # Errors
/// If the body is too large, too late or broken off, or if other bodies take all memory.
pub async fn bytes(app: &App, body: Body) -> Result<(Vec<u8>, HeldBody), ApiError> {
    let mut held = app.bodies.receive();
    let (mut bytes, limit) = (Vec::new(), app.settings.max_body);
    receive(&app.settings, limit, body, &mut held, |data| bytes.extend_from_slice(&data)).await?;
    Ok((bytes, held))
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

/// Passes all bytes of a body to `take`, if there are at most `limit` of them, they come within the
/// time of `settings`, and there is memory for them.
///
/// # Errors
/// If the body is too large, too late or broken off, or if other bodies take all memory.
pub async fn receive(
    settings: &Settings,
    limit: usize,
    body: Body,
    held: &mut HeldBody,
    take: impl FnMut(Bytes),
) -> Result<(), ApiError> {
    let time = settings.times.body;
    // A Content-Length above the limit is refused before anything is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(large(limit));
    }
    let late = |_| {
        let message = format!("no body within {} seconds", time.as_secs_f64());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "validation_error", message)
    };
    let given_up = held.given_up();
    tokio::select! {
        biased;
        error = given_up => Err(error),
        received = timeout(time, collect(body, limit, held, take)) => received.map_err(late)?,
    }
}

/// Passes all bytes of a body of at most `limit` bytes to `take`.
async fn collect(
    body: Body,
    limit: usize,
    held: &mut HeldBody,
    mut take: impl FnMut(Bytes),
) -> Result<(), ApiError> {
    let broken = |e: Box<dyn std::error::Error + Send + Sync>| match e.is::<LengthLimitError>() {
        true => large(limit),
        false => ApiError::invalid("the body breaks off, or is not framed as HTTP has it"),
    };
    let (mut body, mut bytes) = (Limited::new(body, limit), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        bytes += data.len();
        held.grow(bytes).await?;
        take(data);
    }
    held.received();
    Ok(())
}

fn large(limit: usize) -> ApiError {
    let message = format!("the body has more than {limit} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
}
