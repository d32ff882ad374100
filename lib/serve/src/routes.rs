//! The server as a whole: what it is given, and the routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, body::Body};
use mlxk_core::{Error, Kind};
use serde_json::json;
use tokio::sync::watch;
use tower_http::cors::{AllowHeaders, CorsLayer};

use crate::anthropic::messages;
use crate::engine::Engine;
use crate::error::Refusal;
use crate::fields::Fields;
use crate::handler::{Open, body};
use crate::job::Task;
use crate::log::Log;
use crate::metrics::Meter;
use crate::middleware::{self, Id, Key};
use crate::openai::{chat, completions, models, responses};

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who knows one of these may ask; everybody, if there is none.
    pub keys: Vec<Key>,
    /// Whether clients are all on this machine, and must call it by a name of its own: a page
    /// elsewhere could otherwise reach it by a name that it points here.
    pub loopback: bool,
    /// Pages from which browsers may ask: `https://example.org`.
    pub origins: Vec<HeaderValue>,
    /// Whether fields that nothing heeds are passed over.
    pub lenient: bool,
    /// Bytes of the largest body that is read.
    pub max_body: usize,
    /// Connections at once; one more takes the place of the one whose client has been silent
    /// longest.
    pub max_connections: usize,
    /// Tokens of a completion whose request does not say.
    pub max_tokens: Option<u64>,
    /// What clients have time for.
    pub times: Times,
    /// Who is told what happens.
    pub log: Log,
}

/// What clients have time for.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For the head of a request to come, and for a connection to wait for the next one.
    pub head: Duration,
    /// For a body to come.
    pub body: Duration,
    /// For a client to take more of an answer that waits for it.
    pub write: Duration,
}

/// A server, ready to answer.
pub struct App {
    /// What answers.
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) settings: Settings,
    pub(crate) meter: Meter,
    /// Whether no further request is answered.
    closing: AtomicBool,
    /// Whether those that are being answered end as they are.
    over: watch::Sender<bool>,
}

impl App {
    /// A server of what `engine` can answer.
    pub fn new(engine: impl Engine, settings: Settings) -> Arc<App> {
        let (engine, meter) = (Box::new(engine), Meter::new());
        let (closing, over) = (AtomicBool::new(false), watch::Sender::new(false));
        Arc::new(App { engine, settings, meter, closing, over })
    }

    /// Refuses all further requests; those that are being answered go on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether further requests are refused.
    pub(crate) fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends the requests that are being answered, which are told so.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    /// Tells when they end.
    pub(crate) fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// All routes.
    pub fn router(self: &Arc<App>) -> Router {
        Router::new()
            .route("/", get(page))
            .route("/health", get(health))
            .route("/openapi.json", get(openapi))
            .route("/metrics", get(metrics))
            .route("/v1/models", get(all_models))
            .route("/v1/models/{*id}", get(one_model))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/completions", post(completions))
            .route("/v1/responses", post(responses))
            .route("/v1/messages", post(messages))
            .route("/v1/messages/count_tokens", post(count_tokens))
            .route("/v1/embeddings", post(not_yet))
            .route("/v1/audio/transcriptions", post(not_yet))
            .route("/v1/audio/translations", post(not_yet))
            .fallback(no_route)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn_with_state(self.clone(), middleware::guard))
            .layer(self.cors())
            .layer(from_fn_with_state(self.clone(), middleware::mark))
            .with_state(self.clone())
    }

    fn cors(&self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(self.settings.origins.clone())
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([middleware::REQUEST_ID])
    }
}

type Shared = State<Arc<App>>;
type Answer = Result<Response, Refusal>;

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
    crate::handler::json(&json!({"status": "ok", "service": "mlxk-serve"}))
}

async fn metrics(State(app): Shared) -> Response {
    let kind =
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, app.meter.text(&app.engine.figures())).into_response()
}

async fn all_models(State(app): Shared) -> Answer {
    let listed = models::listed(&app).await?;
    Ok(crate::handler::json(&models::list(&listed)))
}

async fn one_model(State(app): Shared, id: Result<Path<String>, PathRejection>) -> Answer {
    let Path(id) = id.map_err(|_| Refusal::invalid("the path is not UTF-8"))?;
    let listed = models::listed(&app).await?;
    Ok(crate::handler::json(&models::one(&listed, &id)?))
}

async fn chat(app: Shared, id: Extension<Id>, body: Body) -> Answer {
    asked(app, id, body, chat::read).await
}

async fn completions(app: Shared, id: Extension<Id>, body: Body) -> Answer {
    let most = app.settings.max_tokens;
    asked(app, id, body, move |fields| completions::read(fields, most)).await
}

async fn responses(app: Shared, id: Extension<Id>, body: Body) -> Answer {
    asked(app, id, body, responses::read).await
}

async fn messages(app: Shared, id: Extension<Id>, body: Body) -> Answer {
    asked(app, id, body, messages::read).await
}

async fn count_tokens(State(app): Shared, sent: Body) -> Answer {
    let of = app.clone();
    let count = body(&app, sent, move |fields| Ok(of.engine.count(messages::counted(fields)?)?));
    let gone = |_| Refusal::from(Error::new(Kind::Internal, "", "the engine has gone"));
    let count = count.await?.await.map_err(gone)??;
    Ok(crate::handler::json(&json!({"input_tokens": count})))
}

async fn not_yet() -> Refusal {
    let message = "this server has models that write text, and no other ones";
    Refusal::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
}

async fn asked(
    State(app): Shared,
    Extension(id): Extension<Id>,
    sent: Body,
    read: impl FnOnce(Fields) -> Result<Task, Refusal> + Send + 'static,
) -> Answer {
    let (of, by) = (app.clone(), id.clone());
    let open = body(&app, sent, move |fields| Open::new(&of, &by, read(fields)?));
    open.await?.answer(id).await
}

async fn no_route() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such path")
}

async fn wrong_method(method: Method) -> Refusal {
    let message = format!("{method} is not for this path");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}
