//! What every request passes: who may ask, from where, and under which id.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mlxk_core::Record;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::error::{RETRY_AFTER, Refusal};
use crate::log::Level;
use crate::routes::{App, Settings};

/// The header with the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The one in which Anthropic's clients look for it.
const ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");

/// The header that Anthropic's clients send the key in.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The longest id of a client that is taken over.
const LONGEST_ID: usize = 128;

/// Paths that need no key.
const OPEN: [&str; 3] = ["/", "/health", "/openapi.json"];

/// What somebody knows who may ask.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The key `text`. Errors with nothing if it is empty or cannot be sent.
    pub fn new(text: &str) -> Option<Key> {
        let sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        sendable.then(|| Key(digest(text)))
    }

    /// Takes the same time whatever `given` is.
    fn is(&self, given: &[u8; 32]) -> bool {
        self.0.ct_eq(given).into()
    }
}

/// Nothing of a key is ever shown.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The id of a request.
#[derive(Clone, Debug)]
pub struct Id(pub String);

impl Id {
    /// The one that the client gave, or a fresh one.
    fn of(headers: &HeaderMap) -> Id {
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        let sane = |id: &&str| {
            (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let id = given.filter(sane).map(str::to_owned);
        Id(id.unwrap_or_else(|| Uuid::new_v4().to_string()))
    }
}

/// Lets a request pass that may.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Puts the id of a request on its answer, and its words on one that is refused; notes it.
pub async fn mark(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = Id::of(request.headers());
    let (started, seen) = (Instant::now(), Seen::of(&request));
    let anthropic = request.uri().path().starts_with("/v1/messages");
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        word(&refusal, anthropic, &id, &mut response);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        if anthropic {
            response.headers_mut().insert(ANTHROPIC_ID, value.clone());
        }
        response.headers_mut().insert(REQUEST_ID, value);
    }
    seen.note(&app, &id, response.status(), started);
    response
}

/// What is noted of a request.
struct Seen {
    method: Method,
    path: String,
    /// The path without what is of this request alone.
    route: String,
}

impl Seen {
    fn of(request: &Request) -> Seen {
        let route = request.extensions().get::<MatchedPath>();
        Seen {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            route: route.map_or("other", MatchedPath::as_str).to_owned(),
        }
    }

    fn note(&self, app: &App, id: &Id, status: StatusCode, started: Instant) {
        app.meter.request(known(&self.method), &self.route, status.as_u16());
        let message = format!("{} {} {}", self.method, self.path, status.as_u16());
        let fields = Record::default().with("seconds", started.elapsed().as_secs_f64());
        app.settings.log.tell(Level::Debug, &id.0, message, fields);
    }
}

/// The method as it is counted. Clients may make up others, each of which would be kept for good.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::OPTIONS => method.as_str(),
        Method::PUT | Method::PATCH | Method::DELETE => method.as_str(),
        _ => "other",
    }
}

/// Gives a refusal its body.
fn word(refusal: &Refusal, anthropic: bool, id: &Id, response: &mut Response) {
    let body = match anthropic {
        true => refusal.anthropic(&id.0),
        false => refusal.openai(&id.0),
    };
    *response.body_mut() = Body::from(body.to_string());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match refusal.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        _ => {}
    }
}

fn check(app: &App, request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = host(request);
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Refusal::invalid("two Host headers"));
    }
    if app.settings.loopback && !host.as_ref().is_some_and(is_here) {
        let message = "this server is called localhost, and by no other name";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "access_denied", message));
    }
    if let Some(origin) = headers.get(header::ORIGIN)
        && !is_own(origin, host.as_ref())
        && !app.settings.origins.contains(origin)
    {
        let message = "pages from there may not ask";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "access_denied", message));
    }
    if !OPEN.contains(&request.uri().path()) && !knows_key(&app.settings, headers) {
        let message = "a key is needed: Authorization: Bearer KEY";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "auth_error", message));
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let message = "a body is taken as it is, without a Content-Encoding";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Refusal::new(status, "validation_error", message));
    }
    match app.closing() {
        true => {
            let message = "the server is stopping";
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "server_shutdown", message))
        }
        false => Ok(()),
    }
}

fn knows_key(settings: &Settings, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let given = digest(bearer.or_else(|| text(API_KEY)).unwrap_or_default());
    // All keys are looked at, so that the time tells nothing.
    let known = settings.keys.iter().filter(|key| key.is(&given)).count();
    settings.keys.is_empty() || known > 0
}

/// What the client calls this server.
fn host(request: &Request) -> Option<Authority> {
    let named =
        request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    request.uri().authority().cloned().or(named)
}

/// True for names that mean this machine wherever they are looked up.
fn is_here(host: &Authority) -> bool {
    let name = host.host().trim_end_matches('.').to_ascii_lowercase();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || bare.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || bare.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback())
}

/// True for a page that this server gave itself.
fn is_own(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let place = origin.split_once("://").map(|(_, place)| place);
    place.is_some() && place == host.map(Authority::as_str)
}
