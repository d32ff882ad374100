//! Requests for embeddings that another server answers: bodies go to it as they are, and its answers
//! come back as they are.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use mlxk_core::{Error, Kind, Record};
use serde_json::Value;

use crate::body::{blocking, bytes};
use crate::embed_backend::{Answer, EmbedBackend, FORWARDED, Failure, failure};
use crate::error::ApiError;
use crate::log::Level;
use crate::reply::TRUNCATED;
use crate::request_id::RequestId;
use crate::state::App;

/// Forwards the body of a request for embeddings, and responds as the backend does.
///
/// # Errors
/// If the body is too large, the backend cannot be reached or is late, or its answer is not JSON.
pub async fn respond(
    backend: &EmbedBackend,
    app: &App,
    id: &RequestId,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if headers.contains_key(FORWARDED) {
        return Err(failure(502, "backends of embeddings forward to each other in a circle"));
    }
    let (bytes, held) = bytes(app, body).await?;
    let permit = backend.permit().await?;
    let content_type = headers.get(CONTENT_TYPE).cloned();
    let (client, own) = (backend.clone(), id.clone());
    let ask = move || {
        let answer = client.ask(&bytes, &own, content_type);
        drop((held, permit));
        Ok(answer)
    };
    let mut aborted = app.aborted();
    let answer = tokio::select! {
        biased;
        _ = aborted.wait_for(|&aborted| aborted) => {
            return Err(Error::new(Kind::ServerShutdown, "", "the server is stopping").into());
        }
        answer = blocking(ask) => answer?,
    };
    answer.and_then(passed).map_err(|failure| {
        let fields = Record::default().with("backend", backend.url());
        let message = format!("backend of embeddings: {}", failure.detail);
        app.settings.log.request(Level::Error, &id.0, message, fields);
        failure.error
    })
}

/// The response of an answer: as it is if it is JSON, as this server's own errors are if not.
fn passed(answer: Answer) -> Result<Response, Failure> {
    let Answer { status, headers, body } = answer;
    let refused = |code: u16, message: String| {
        Err(Failure { error: failure(code, &message), detail: message })
    };
    if !(status.is_success() || status.is_client_error() || status.is_server_error()) {
        return refused(502, format!("the backend of embeddings answers {status}, not followed"));
    }
    let is_json = match status.is_success() {
        true => headers.get(CONTENT_TYPE).is_some_and(|kind| {
            kind.to_str().is_ok_and(|kind| kind.trim_start().starts_with("application/json"))
        }),
        false => matches!(serde_json::from_slice(&body), Ok(Value::Object(_))),
    };
    if !is_json {
        let code = if status.is_success() { 502 } else { status.as_u16() };
        return refused(code, format!("the backend of embeddings answers {status} without JSON"));
    }
    let mut response = (status, body).into_response();
    let kept = [CONTENT_TYPE, RETRY_AFTER, TRUNCATED];
    response.headers_mut().remove(CONTENT_TYPE);
    for name in kept {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}
