//! Replies of the engine that come as a whole.

use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use mlxk_core::{Error, Kind};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::body;
use crate::error::ApiError;
use crate::state::App;

/// The header with the number of inputs that were cut to the model's length.
pub const TRUNCATED: HeaderName = HeaderName::from_static("x-mlxk-truncated");

/// Waits for a reply of the engine.
///
/// # Errors
/// If the request fails, or the server ends running requests first.
pub async fn reply<T>(
    app: &App,
    reply: oneshot::Receiver<mlxk_core::Result<T>>,
) -> Result<T, ApiError> {
    let mut aborted = app.aborted();
    tokio::select! {
        biased;
        _ = aborted.wait_for(|&aborted| aborted) => {
            Err(Error::new(Kind::ServerShutdown, "", "the server is stopping").into())
        }
        reply = reply => match reply {
            Ok(reply) => Ok(reply?),
            Err(_) => Err(Error::new(Kind::Internal, "", "the engine has gone").into()),
        }
    }
}

/// A response with a JSON document, whose header tells how many inputs were `truncated`.
///
/// # Errors
/// If the document cannot be written as JSON.
pub fn respond(document: &impl Serialize, truncated: u64) -> Result<Response, ApiError> {
    let text = serde_json::to_string(document)
        .map_err(|e| ApiError::from(Error::new(Kind::Internal, "", e.to_string())))?;
    let response = body::json(&text);
    Ok(match truncated {
        0 => response,
        count => ([(TRUNCATED, HeaderValue::from(count))], response).into_response(),
    })
}
