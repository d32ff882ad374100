//! HTTP client of a Hub: requests with the user's token, redirects, and retries with backoff.
//!
//! The client follows redirects itself instead of leaving them to the HTTP library, because the
//! token belongs to the host of the endpoint alone: a redirect to another host (a CDN) is followed
//! without it.

use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use mlxk_core::{Error, Kind, Remote, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::config::Config;
use ureq::http::header::RANGE;
use ureq::http::request::Builder;
use ureq::http::{self, HeaderMap, Method, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, AsSendBody, Body, Proxy, ProxyProtocol, ResponseExt, SendBody};

use crate::address::{Guard, ToProxy};
use crate::backoff::{Backoff, interrupted, sleep};
use crate::error::{self, Attempt, Failure};
use crate::forward::Forward;
use crate::proxy::Proxies;
use crate::redirect;
use mlxk_core::progress::{Listener, Progress};

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 8;

/// Longest JSON response, in bytes.
const MAX_JSON: u64 = 64 << 20;

/// Longest time in which an answer of the API comes, so that a trickle has an end.
const MAX_ANSWER: Duration = Duration::from_secs(60);

/// Idle connections that are kept open per host.
const IDLE_CONNECTIONS: usize = 16;

/// Interval at which cancellation is checked while requests are in flight.
const CANCEL_INTERVAL: Duration = Duration::from_millis(100);

/// Input buffer of a connection, in bytes: few system calls, and all connections together fit the
/// processor's cache.
const BUFFER: usize = 64 << 10;

/// HTTP client of one Hub.
pub struct Hub {
    remote: Remote,
    endpoint: Uri,
    guard: Guard,
    proxies: Proxies,
    agents: Agents,
    cancelled: Box<dyn Fn() -> bool + Send + Sync>,
}

/// HTTP agents, one for each way that requests go.
struct Agents {
    direct: Agent,
    /// Agent for http URLs through their proxy.
    http: Agent,
    /// Agent for https URLs through their proxy.
    https: Agent,
}

/// HTTP request to the Hub or its storage.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Absolute URL.
    pub url: &'a str,
    /// Header names and values, in addition to those that every request has.
    pub headers: &'a [(&'a str, &'a str)],
    /// Request body; may be empty.
    pub body: &'a [u8],
}

impl Hub {
    /// Client of the Hub at `remote`; `cancelled` is polled during all work and ends it when true.
    ///
    /// # Errors
    /// If `remote` is offline, the endpoint or a proxy is not a valid URL, or the token has characters
    /// that no token has.
    pub fn new(
        remote: Remote,
        cancelled: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Hub> {
        if remote.offline {
            return Err(Error::new(Kind::DownloadFailed, "", "offline: HF_HUB_OFFLINE is set"));
        }
        let endpoint = remote.endpoint.parse::<Uri>().ok();
        let endpoint = endpoint.filter(|uri| uri.host().is_some() && uri.scheme().is_some());
        let endpoint = endpoint.ok_or_else(|| {
            Error::new(Kind::Validation, &remote.endpoint, "not the address of a Hub")
                .hint("HF_ENDPOINT is a URL: https://huggingface.co")
        })?;
        let is_odd = |c: char| !c.is_ascii_graphic();
        if remote.token.as_ref().is_some_and(|token| token.secret().contains(is_odd)) {
            return Err(Error::new(Kind::Auth, "", "the token has characters that no token has")
                .hint("HF_TOKEN, or the file that `hf auth login` writes, holds it"));
        }
        let proxies = Proxies::new(&remote.proxies)?;
        let agents = Agents::new(&remote, &endpoint, &proxies);
        let guard = Guard::new(&endpoint);
        Ok(Hub { remote, endpoint, guard, proxies, agents, cancelled: Box::new(cancelled) })
    }

    /// Connection settings of this client.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// URL of `path` in the Hub's API.
    pub fn api(&self, path: &str) -> String {
        format!("{}/api/{path}", self.remote.endpoint)
    }

    /// Fails if the user has cancelled the work.
    pub fn check(&self) -> Result<()> {
        if (self.cancelled)() { Err(interrupted()) } else { Ok(()) }
    }

    /// Sends a GET request with retries; returns the parsed JSON and the response's headers.
    pub fn get<T: DeserializeOwned>(
        &self,
        url: &str,
        progress: Listener,
    ) -> Result<(T, HeaderMap)> {
        self.json(Request { method: &Method::GET, url, headers: &[], body: &[] }, progress)
    }

    /// Sends a POST request of `body` as JSON with retries; returns the parsed JSON.
    ///
    /// Only for idempotent requests: one whose response is lost is sent again.
    pub fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        body: &impl Serialize,
        progress: Listener,
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|e| invalid_json(url, &e))?;
        let headers = &[("content-type", "application/json")];
        let request = Request { method: &Method::POST, url, headers, body: &body };
        Ok(self.json(request, progress)?.0)
    }

    /// Sends `request` with retries; returns the parsed JSON and the response's headers.
    pub fn json<T: DeserializeOwned>(
        &self,
        request: Request,
        progress: Listener,
    ) -> Result<(T, HeaderMap)> {
        let read = || {
            let mut response = self.send(request)?;
            let body = response.body_mut().with_config().limit(MAX_JSON).read_to_vec();
            let body = body.map_err(|e| self.network_failure(e, request.url))?;
            Ok((body, response.headers().clone()))
        };
        let (body, headers) = self.retry("", progress, read)?;
        let value = parse(&body).map_err(|e| invalid_json(request.url, &e))?;
        Ok((value, headers))
    }

    /// Repeats `attempt` with backoff until it succeeds or its failure is final; events name
    /// `path`.
    pub fn retry<T>(
        &self,
        path: &str,
        progress: Listener,
        attempt: impl Fn() -> Attempt<T>,
    ) -> Result<T> {
        let mut backoff = Backoff::new();
        loop {
            self.check()?;
            let failure = match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            self.check()?;
            let (wait, reason) = backoff.delay(failure)?;
            progress(Progress::Retry { path, reason: &reason, wait });
            sleep(wait, || self.check())?;
        }
    }

    /// Sends `request` once, following redirects; a status other than success is a failure.
    pub fn send(&self, request: Request) -> Attempt<Response<Body>> {
        let mut url = request.url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let response = self.send_to(&url, request)?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let location = response.headers().get("location").map(|to| to.as_bytes());
            match location.filter(|_| status.is_redirection()) {
                Some(to) => url = self.redirect_url(&response, to)?,
                None if !self.is_endpoint(&url) => {
                    return Err(error::from_storage(response, &host(&url)));
                }
                None => return Err(error::from_hub(response)),
            }
        }
        let message = format!("{} redirects in circles", host(&url));
        Err(Error::new(Kind::DownloadFailed, "", message).into())
    }

    /// Failure of a request to `url` by a network error.
    pub fn network_failure(&self, error: ureq::Error, url: &str) -> Failure {
        let proxy = url.parse().ok().and_then(|url| self.proxies.of(&url));
        let host = match proxy {
            Some(proxy) => format!("{} through the proxy {}", host(url), proxy.host()),
            None => host(url),
        };
        error::from_network(error, &host)
    }

    /// Runs `work`, and closes its connections once the user cancels.
    pub fn interruptible<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    thread::park_timeout(CANCEL_INTERVAL);
                    if (self.cancelled)() {
                        return self.agents.shutdown();
                    }
                }
            });
            let result = work();
            done.store(true, Ordering::Release);
            watcher.thread().unpark();
            result
        })
    }

    /// Sends `request` once with a body of `size` bytes read from `body`. Redirects are not
    /// followed, because the bytes read cannot be sent again.
    pub fn upload(
        &self,
        request: Request,
        body: &mut dyn Read,
        size: u64,
    ) -> Attempt<Response<Body>> {
        let builder = self.build(request.url, request).header("content-length", size);
        let response = self.run(builder, SendBody::from_reader(body), request.url)?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(error::from_hub(response)),
        }
    }

    fn send_to(&self, url: &str, request: Request) -> Attempt<Response<Body>> {
        let builder = self.build(url, request);
        match request.body.is_empty() && request.method != Method::POST {
            true => self.run(builder, (), url),
            false => self.run(builder, request.body, url),
        }
    }

    /// Sends the request of `builder` to `url`, if requests may go there.
    fn run(&self, builder: Builder, body: impl AsSendBody, url: &str) -> Attempt<Response<Body>> {
        let failed = |e| self.network_failure(e, url);
        let request = builder.body(body).map_err(|e| failed(ureq::Error::Http(e)))?;
        let refused = |why: String| Error::new(Kind::DownloadFailed, "", why);
        if !self.is_as_secure(url) {
            return Err(refused(format!("{} would be reached unencrypted", host(url))).into());
        }
        self.guard.check(request.uri()).map_err(|e| refused(format!("{}: {e}", host(url))))?;
        // Ranges of files come from below this URL too.
        let is_api = *request.method() == Method::GET
            && url.starts_with(&self.api(""))
            && !request.headers().contains_key(RANGE);
        let timeout = Some(match is_api || *request.method() == Method::HEAD {
            true => self.remote.metadata_timeout,
            false => self.remote.timeout,
        });
        let agent = self.agents.of(request.uri(), &self.proxies);
        let request = agent.configure_request(request);
        let request = request.timeout_resolve(timeout).timeout_connect(timeout);
        let request = request.timeout_per_read(timeout).timeout_per_write(timeout);
        let request = request.timeout_recv_body(is_api.then_some(MAX_ANSWER));
        agent.run(request.build()).map_err(failed)
    }

    /// Builds `request` for `url`, with the token if `url` is on the endpoint's host.
    fn build(&self, url: &str, request: Request) -> Builder {
        let mut builder = http::Request::builder().method(request.method.clone()).uri(url);
        for (name, value) in request.headers {
            // A redirect to another host must not carry the credentials.
            if *name != "authorization" || is_same_origin(url, request.url) {
                builder = builder.header(*name, *value);
            }
        }
        let login = url.parse().ok().and_then(|url| proxy_login(self.proxies.of(&url)?, &url));
        if let Some(login) = login {
            builder = builder.header("proxy-authorization", login);
        }
        match self.remote.token.as_ref().filter(|_| self.is_endpoint(url)) {
            Some(token) => builder.header("authorization", format!("Bearer {}", token.secret())),
            None => builder,
        }
    }

    /// True if `url` is at least as well encrypted as the endpoint: https, or http where the
    /// endpoint is.
    pub(crate) fn is_as_secure(&self, url: &str) -> bool {
        let encrypted = url.parse::<Uri>().is_ok_and(|url| url.scheme_str() == Some("https"));
        encrypted || self.endpoint.scheme_str() == Some("http")
    }

    /// True if `url` has the origin of the endpoint, the only one that may receive the token.
    fn is_endpoint(&self, url: &str) -> bool {
        is_same_origin(url, &self.remote.endpoint)
    }

    /// Absolute URL of the redirect `to`; a redirect from https to http is refused.
    fn redirect_url(&self, response: &Response<Body>, to: &[u8]) -> Attempt<String> {
        let from = response.get_uri().to_string();
        let url = redirect::resolve(&from, to);
        let safe = |url: &String| from.starts_with("http:") || url.starts_with("https:");
        url.filter(safe).ok_or_else(|| {
            let to = String::from_utf8_lossy(to);
            let message = format!("{} redirects to an invalid or insecure URL: {to}", host(&from));
            Error::new(Kind::DownloadFailed, "", message).into()
        })
    }
}

impl Agents {
    fn new(remote: &Remote, endpoint: &Uri, proxies: &Proxies) -> Agents {
        let through = |proxy: Option<&Proxy>| {
            let config = config(remote, proxy.cloned());
            Agent::with_parts(config, DefaultConnector::default(), Guard::new(endpoint))
        };
        Agents {
            direct: through(None),
            http: match proxies.http() {
                Some(proxy) if is_forwarding(proxy) => Agent::with_parts(
                    config(remote, None),
                    DefaultConnector::default().chain(Forward),
                    ToProxy(proxy.uri().clone()),
                ),
                proxy => through(proxy),
            },
            https: through(proxies.https()),
        }
    }

    /// Agent for requests to `url`.
    fn of(&self, url: &Uri, proxies: &Proxies) -> &Agent {
        match (proxies.of(url), url.scheme_str()) {
            (None, _) => &self.direct,
            (Some(_), Some("https")) => &self.https,
            (Some(_), _) => &self.http,
        }
    }

    fn shutdown(&self) {
        for agent in [&self.direct, &self.http, &self.https] {
            agent.clone().shutdown();
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Settings of an agent, which all come from `remote`, none from the environment.
fn config(remote: &Remote, proxy: Option<Proxy>) -> Config {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("mlxk/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(remote.timeout))
        .timeout_connect(Some(remote.timeout))
        .timeout_per_read(Some(remote.timeout))
        .timeout_per_write(Some(remote.timeout))
        .input_buffer_size(BUFFER)
        .max_idle_connections(2 * IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .tls_config(tls)
        .proxy(proxy)
        .build()
}

/// True if `proxy` takes requests for http URLs itself, without a tunnel.
fn is_forwarding(proxy: &Proxy) -> bool {
    proxy.protocol() == ProxyProtocol::Http
}

/// Header that logs in to `proxy` for a request to `url`; a tunnel logs in before.
fn proxy_login(proxy: &Proxy, url: &Uri) -> Option<String> {
    let user = proxy.username().filter(|_| is_forwarding(proxy))?;
    let login = format!("{user}:{}", proxy.password().unwrap_or_default());
    (url.scheme_str() != Some("https")).then(|| format!("Basic {}", BASE64.encode(login)))
}

/// Value of a JSON text, which may begin with a byte order mark.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text))
}

/// True if two URLs have the same scheme, host and port.
fn is_same_origin(one: &str, other: &str) -> bool {
    let origin = |url: &str| {
        let uri = url.parse::<Uri>().ok()?;
        Some((uri.scheme()?.clone(), uri.host()?.to_lowercase(), uri.port_u16()))
    };
    origin(one).is_some_and(|one| origin(other) == Some(one))
}

/// Host and port of `url`, as errors show them, without a login.
fn host(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    let authority = uri.as_ref().and_then(|uri| uri.authority()).map(|a| a.as_str());
    authority.and_then(|a| a.rsplit('@').next()).unwrap_or_default().to_owned()
}

fn invalid_json(url: &str, error: &serde_json::Error) -> Error {
    let message = format!("{} does not answer like a Hub: {error}", host(url));
    Error::new(Kind::DownloadFailed, "", message).hint("HF_ENDPOINT names the Hub")
}
