//! The routes of the server.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, body::Body};
use mlxk_processor::transcript::SpeechTask;
use serde_json::json;
use tower_http::cors::{AllowHeaders, CorsLayer};

use crate::anthropic::messages;
use crate::body;
use crate::error::ApiError;
use crate::forward;
use crate::handler::{generate, log_omitted, with_omitted};
use crate::middleware::{control_access, identify};
use crate::omitted::OMITTED;
use crate::openai::{audio, chat, completions, embeddings, models, responses};
use crate::reply::reply;
use crate::request_id::{REQUEST_ID, RequestId};
use crate::search::{info, rerank, score, tei};
use crate::state::{App, EmbedOnly, Settings};

type Shared = State<Arc<App>>;
type Id = Extension<RequestId>;
type Result<T = Response, E = ApiError> = std::result::Result<T, E>;

/// The router of a server, with all routes and middleware.
pub fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/", post(infer))
        .route("/info", get(info))
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
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/rerank", post(rerank))
        .route("/v2/rerank", post(rerank))
        .route("/rerank", post(rerank))
        .route("/v1/score", post(score))
        .route("/score", post(score))
        .route("/embed", post(embed))
        .route("/similarity", post(similarity))
        .route("/embed_sparse", post(no_sparse_embeddings))
        .route("/embed_all", post(no_token_embeddings))
        .route("/v1/audio/transcriptions", post(transcriptions))
        .route("/v1/audio/translations", post(translations))
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
        .expose_headers([REQUEST_ID, OMITTED])
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

async fn health(State(app): Shared) -> Response {
    body::json(&match &app.settings.embed_only {
        Some(EmbedOnly { identity, fingerprint, .. }) => {
            json!({"status": "ok", "model": identity, "system_fingerprint": fingerprint})
        }
        None => json!({"status": "ok", "service": "mlxk-serve"}),
    })
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

async fn count_tokens(State(app): Shared, Extension(id): Id, body: Body) -> Result {
    let state = app.clone();
    let count = move |fields, _: &mut _| {
        let (request, omitted) = messages::parse_count(fields)?;
        Ok((state.engine.count(request)?, omitted))
    };
    let ((count, omitted), _held) = body::read(&app, body, count).await?;
    log_omitted(&app, &id, &omitted);
    let count = reply(&app, count).await?;
    Ok(with_omitted(body::json(&json!({"input_tokens": count})), &omitted))
}

async fn embeddings(
    State(app): Shared,
    Extension(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result {
    match &app.settings.embed_backend {
        Some(backend) => forward::respond(backend, &app, &id, &headers, body).await,
        None => embeddings::respond(app, body).await,
    }
}

async fn rerank(State(app): Shared, body: Body) -> Result {
    rerank::respond(app, body).await
}

async fn score(State(app): Shared, body: Body) -> Result {
    score::respond(app, body).await
}

async fn embed(State(app): Shared, body: Body) -> Result {
    tei::embed(app, body).await
}

async fn infer(State(app): Shared, body: Body) -> Result {
    tei::infer(app, body).await
}

async fn info(State(app): Shared) -> Result {
    Ok(body::json(&info::document(&app).await?))
}

async fn similarity(State(app): Shared, body: Body) -> Result {
    tei::similarity(app, body).await
}

async fn no_sparse_embeddings() -> ApiError {
    unsupported("sparse embeddings (SPLADE) are not supported; POST /embed makes dense ones")
}

async fn no_token_embeddings() -> ApiError {
    unsupported("embeddings of single tokens (ColBERT) are not supported; POST /embed has texts'")
}

fn unsupported(message: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
}

async fn transcriptions(State(app): Shared, Extension(id): Id, request: Request) -> Result {
    audio::respond(app, id, request, SpeechTask::Transcribe).await
}

async fn translations(State(app): Shared, Extension(id): Id, request: Request) -> Result {
    audio::respond(app, id, request, SpeechTask::Translate).await
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such path")
}

async fn method_not_allowed(method: Method) -> ApiError {
    let message = format!("{method} is not for this path");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
