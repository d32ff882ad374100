//! The routes of the server.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, body::Body};
use mlxk_core::{Error, Kind};
use serde_json::json;
use tower_http::cors::{AllowHeaders, CorsLayer};

use crate::anthropic::messages;
use crate::body;
use crate::error::ApiError;
use crate::handler::generate;
use crate::middleware::{control_access, identify};
use crate::openai::{chat, completions, models, responses};
use crate::request_id::{REQUEST_ID, RequestId};
use crate::state::{App, Settings};

type Shared = State<Arc<App>>;
type Id = Extension<RequestId>;
type Result<T = Response, E = ApiError> = std::result::Result<T, E>;

/// The router of a server, with all routes and middleware.
pub fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/health", get(health))
        .route("/openapi.json", get(openapi))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(list_models))
        .route("/v1/models/{*id}", get(get_model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/responses", post(responses))
        .route("/v1/messages", post(messages))
        .route("/v1/messages/count_tokens", post(count_tokens))
        .route("/v1/embeddings", post(not_implemented))
        .route("/v1/audio/transcriptions", post(not_implemented))
        .route("/v1/audio/translations", post(not_implemented))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), control_access))
        .layer(cors(&app.settings))
        .layer(from_fn_with_state(app.clone(), identify))
        .with_state(app.clone())
}

fn cors(settings: &Settings) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(settings.origins.clone())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID])
}

async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                  connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, include_str!("page.html")).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

async fn health() -> Response {
    body::json(&json!({"status": "ok", "service": "mlxk-serve"}))
}

async fn metrics(State(app): Shared) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = app.metrics.encode(&app.engine.figures());
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

async fn list_models(State(app): Shared) -> Result {
    let listed = models::fetch(&app).await?;
    Ok(body::json(&models::list(&listed)))
}

async fn get_model(State(app): Shared, id: Result<Path<String>, PathRejection>) -> Result {
    let Path(id) = id.map_err(|_| ApiError::invalid("the path is not UTF-8"))?;
    let listed = models::fetch(&app).await?;
    Ok(body::json(&models::find(&listed, &id)?))
}

async fn chat(State(app): Shared, Extension(id): Id, body: Body) -> Result {
    generate(app, id, body, chat::parse).await
}

async fn completions(State(app): Shared, Extension(id): Id, body: Body) -> Result {
    let max_tokens = app.settings.max_tokens;
    generate(app, id, body, move |fields| completions::parse(fields, max_tokens)).await
}

async fn responses(State(app): Shared, Extension(id): Id, body: Body) -> Result {
    generate(app, id, body, responses::parse).await
}

async fn messages(State(app): Shared, Extension(id): Id, body: Body) -> Result {
    generate(app, id, body, messages::parse).await
}

async fn count_tokens(State(app): Shared, body: Body) -> Result {
    let state = app.clone();
    let count = move |fields, _: &mut _| Ok(state.engine.count(messages::parse_count(fields)?)?);
    let gone = |_| ApiError::from(Error::new(Kind::Internal, "", "the engine has gone"));
    let (count, _held) = body::read(&app, body, count).await?;
    let count = count.await.map_err(gone)??;
    Ok(body::json(&json!({"input_tokens": count})))
}

async fn not_implemented() -> ApiError {
    let message = "this server has models that write text, and no other ones";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path")
}

async fn method_not_allowed(method: Method) -> ApiError {
    let message = format!("{method} is not for this path");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
