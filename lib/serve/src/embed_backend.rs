//! Client of another server that answers requests for embeddings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use mlxk_core::{Error, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Timeout};

use crate::error::ApiError;
use crate::request_id::{REQUEST_ID, RequestId};

/// Requests that wait for the backend at once.
const REQUESTS: usize = 32;

/// Maximum size of an answer in bytes: 2,048 vectors of 4,096 numbers in digits.
const MAX_ANSWER: u64 = 128 << 20;

/// Timeouts of mlx-knife: to wait for one of the connections, to connect, to send, and to receive.
const WAIT: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
const SEND: Duration = Duration::from_secs(30);
const RECEIVE: Duration = Duration::from_secs(120);

/// The header of forwarded requests, by which a circle of servers is seen.
pub const FORWARDED: HeaderName = HeaderName::from_static("x-mlxk-forwarded");

/// Another server that answers requests for embeddings.
#[derive(Clone)]
pub struct EmbedBackend {
    agent: Agent,
    url: String,
    key: Option<String>,
    free: Arc<Semaphore>,
}

/// Debug output of a backend, which does not reveal its key.
impl fmt::Debug for EmbedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbedBackend").field(&self.url).finish()
    }
}

impl EmbedBackend {
    /// The server at `url`, whose API begins there with `/v1`; requests to it carry `key`.
    ///
    /// # Errors
    /// If `url` is not the address of a server.
    pub fn new(url: &str, key: Option<String>) -> mlxk_core::Result<EmbedBackend> {
        let invalid = |message: &str| {
            Err(Error::new(Kind::Command, "--embed-backend", message)
                .hint("the URL of a server is like http://localhost:8002"))
        };
        let Ok(uri) = url.parse::<Uri>() else { return invalid("not a URL") };
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return invalid("not an http or https URL");
        };
        if authority.as_str().contains('@') {
            return invalid("a URL with a name or password, which logs would show");
        }
        if uri.query().is_some() || url.contains('#') {
            return invalid("a URL with a query or a fragment");
        }
        let base = url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A redirect could lead anywhere.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls)
            .timeout_connect(Some(CONNECT))
            .timeout_send_request(Some(SEND))
            .timeout_send_body(Some(SEND))
            .timeout_recv_response(Some(RECEIVE))
            .timeout_recv_body(Some(RECEIVE))
            .max_idle_connections_per_host(REQUESTS)
            .build()
            .new_agent();
        let (url, free) = (format!("{base}/v1/embeddings"), Arc::new(Semaphore::new(REQUESTS)));
        Ok(EmbedBackend { agent, url, key, free })
    }

    /// A permit to send a request.
    ///
    /// # Errors
    /// If too many requests wait for the backend.
    pub async fn permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let free = timeout(WAIT, self.free.clone().acquire_owned()).await.ok();
        free.and_then(Result::ok)
            .ok_or_else(|| failure(503, "too many requests wait for the backend of embeddings"))
    }

    /// URL to which requests go.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends the body of a request, and waits for the answer; this blocks the thread.
    ///
    /// # Errors
    /// If the backend cannot be reached or is late, or its answer is too large.
    pub fn ask(
        &self,
        body: &[u8],
        id: &RequestId,
        content_type: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let content_type =
            content_type.unwrap_or_else(|| HeaderValue::from_static("application/json"));
        let mut request = self
            .agent
            .post(&self.url)
            .header(CONTENT_TYPE, content_type)
            .header(ACCEPT_ENCODING, "identity")
            .header(REQUEST_ID, &id.0)
            .header(FORWARDED, "1");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        let (head, mut body) = request.send(body).map_err(Failure::of)?.into_parts();
        let body = body.with_config().limit(MAX_ANSWER).read_to_vec().map_err(Failure::of)?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// An answer of the backend.
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// Body of the answer.
    pub body: Vec<u8>,
}

/// A failure to get an answer: what clients are told, and the detail for the log.
pub struct Failure {
    /// Error for clients, which does not tell where the backend is.
    pub error: ApiError,
    /// Detail for the log.
    pub detail: String,
}

impl Failure {
    fn of(error: ureq::Error) -> Failure {
        let detail = error.to_string();
        let error = match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                failure(502, "the backend of embeddings cannot be reached")
            }
            ureq::Error::Timeout(_) => failure(504, "the backend of embeddings is late"),
            ureq::Error::BodyExceedsLimit(_) => {
                failure(502, "the answer of the backend of embeddings is too large")
            }
            _ => failure(502, "the backend of embeddings cannot be reached"),
        };
        Failure { error, detail }
    }
}

/// An error of the backend.
pub fn failure(status: u16, message: &str) -> ApiError {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    ApiError::new(status, "backend_error", message)
}
