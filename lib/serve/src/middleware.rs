//! Middleware of all routes: access control, and the id, error body, metrics and log entry of each
//! request.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mlxk_core::Record;

use crate::auth;
use crate::error::ApiError;
use crate::log::Level;
use crate::request_id::{REQUEST_ID, RequestId};
use crate::state::App;

/// The header in which Anthropic's clients look for the id of a request.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Names by which Docker, Podman and Lima let containers call their host. The domain `internal` is
/// reserved, so that no web page has such a name.
const HOSTS_OF_CONTAINERS: [&str; 4] = [
    "gateway.docker.internal",
    "host.containers.internal",
    "host.docker.internal",
    "host.lima.internal",
];

/// Paths that need no API key to be read.
const PUBLIC_PATHS: [&str; 3] = ["/", "/health", "/openapi.json"];

/// Seconds after which a client may retry, in the header Retry-After.
const RETRY_AFTER: u64 = 1;

/// Middleware that refuses requests by their host, origin, key or encoding, and all requests while
/// the server stops.
pub async fn control_access(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Middleware that gives a request its id, an error its body, and counts and logs the response.
pub async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = RequestId::from_headers(request.headers());
    let (started, summary) = (Instant::now(), Summary::new(&request));
    let anthropic = request.uri().path().starts_with("/v1/messages");
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        write_error(&error, anthropic, &id, &mut response);
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        if anthropic {
            response.headers_mut().insert(ANTHROPIC_REQUEST_ID, value.clone());
        }
        response.headers_mut().insert(REQUEST_ID, value);
    }
    summary.record(&app, &id, response.status(), started);
    response
}

/// The parts of a request that metrics and the log need after it was consumed.
struct Summary {
    method: Method,
    path: String,
    /// The pattern of the route, such as `/v1/models/{*id}`, or `other`.
    route: String,
}

impl Summary {
    fn new(request: &Request) -> Summary {
        let route = request.extensions().get::<MatchedPath>();
        Summary {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            route: route.map_or("other", MatchedPath::as_str).to_owned(),
        }
    }

    /// Counts and logs the request, whose response has `status`.
    fn record(&self, app: &App, id: &RequestId, status: StatusCode, started: Instant) {
        app.metrics.count_request(method_label(&self.method), &self.route, status.as_u16());
        let message = format!("{} {} {}", self.method, self.path, status.as_u16());
        let fields = Record::default().with("seconds", started.elapsed().as_secs_f64());
        app.settings.log.request(Level::Debug, &id.0, message, fields);
    }
}

/// The label of a method in metrics. Invented methods share one label, as each label takes memory
/// until the server stops.
fn method_label(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::OPTIONS => method.as_str(),
        Method::PUT | Method::PATCH | Method::DELETE => method.as_str(),
        _ => "other",
    }
}

/// Writes an error into the body and headers of a response.
fn write_error(error: &ApiError, anthropic: bool, id: &RequestId, response: &mut Response) {
    let body = match anthropic {
        true => error.anthropic(&id.0),
        false => error.openai(&id.0),
    };
    *response.body_mut() = Body::from(body.to_string());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    match error.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        _ => {}
    }
}

/// Checks host, origin, key and encoding of a request, and that the server is not stopping.
fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = host(request);
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(ApiError::invalid("two Host headers"));
    }
    let known = |host: &Authority| is_this_machine(host) || is_allowed(&app.settings.hosts, host);
    if app.settings.loopback && !host.as_ref().is_some_and(known) {
        let message = "this server is called localhost; --allow-host allows other names";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "access_denied", message));
    }
    if let Some(origin) = headers.get(header::ORIGIN)
        && !is_same_origin(origin, host.as_ref())
        && !app.settings.origins.contains(origin)
    {
        let message = "pages from there may not ask";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "access_denied", message));
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let public = reads && PUBLIC_PATHS.contains(&request.uri().path());
    if !public && !auth::authorized(&app.settings.keys, headers) {
        let message = "a key is needed: Authorization: Bearer KEY";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "auth_error", message));
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let message = "a body is taken as it is, without a Content-Encoding";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "validation_error", message));
    }
    match app.is_closing() {
        true => {
            let message = "the server is stopping";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_shutdown", message))
        }
        false => Ok(()),
    }
}

/// The host that a request names, in its URI or in its header Host.
fn host(request: &Request) -> Option<Authority> {
    let header =
        request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse().ok());
    request.uri().authority().cloned().or(header)
}

/// True if a host is a loopback address, or a name that no web page can have: one that always
/// resolves to such an address, or by which containers call their host.
fn is_this_machine(host: &Authority) -> bool {
    let name = plain_name(host);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || HOSTS_OF_CONTAINERS.contains(&&*name)
        || bare.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || bare.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback())
}

/// True if the name of a host is among `hosts`, in any case.
fn is_allowed(hosts: &[String], host: &Authority) -> bool {
    let name = plain_name(host);
    hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(&name))
}

/// The name of a host in lower case, without its port and the dot of the root.
fn plain_name(host: &Authority) -> String {
    host.host().trim_end_matches('.').to_ascii_lowercase()
}

/// True if a page's origin has the host and port that its request names, so that the page is this
/// server's own.
fn is_same_origin(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_some() && authority == host.map(Authority::as_str)
}
