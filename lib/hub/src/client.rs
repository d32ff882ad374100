//! The client: questions to the Hub, with the user's token and with patience.
//!
//! Redirects are followed here and not by the HTTP library, since the token belongs to the host of
//! the endpoint alone: what that host redirects to, a CDN, is asked without it.

use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mlxk_core::{Error, Kind, Remote, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Method, Request, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy, ResponseExt, SendBody};

use crate::event::{Event, Listener};
use crate::patience::{Patience, interrupted, sleep};
use crate::refusal::{self, Attempt, Failure};

/// Redirects in a row that are followed.
const REDIRECTS: usize = 8;

/// An answer in JSON is not longer than this.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Connections that are kept for the next request.
const IDLE: usize = 16;

/// How often it is asked whether the user has had enough.
const GLANCE: Duration = Duration::from_millis(100);

/// Bytes that are read from a connection at once: few calls, and for all connections together little
/// enough for the cache.
const BUFFER: usize = 64 << 10;

/// A Hub that can be asked.
pub struct Hub {
    remote: Remote,
    home: Uri,
    agent: Agent,
    cancelled: Box<dyn Fn() -> bool + Send + Sync>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a Method,
    /// The whole address.
    pub url: &'a str,
    /// Names and values, beside those that every request has.
    pub headers: &'a [(&'a str, &'a str)],
    /// What is sent along; may be empty.
    pub body: &'a [u8],
}

impl Hub {
    /// The Hub at `remote`; `cancelled` is asked again and again whether the user has had enough.
    ///
    /// Errors if nothing may be asked, or an address is none.
    pub fn new(
        remote: Remote,
        cancelled: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Hub> {
        if remote.offline {
            return Err(Error::new(Kind::DownloadFailed, "", "offline: HF_HUB_OFFLINE is set"));
        }
        let home = remote.endpoint.parse::<Uri>().ok();
        let home = home.filter(|uri| uri.host().is_some() && uri.scheme().is_some());
        let home = home.ok_or_else(|| {
            Error::new(Kind::Validation, &remote.endpoint, "not the address of a Hub")
                .hint("HF_ENDPOINT is a URL: https://huggingface.co")
        })?;
        let agent = agent(&remote)?;
        Ok(Hub { remote, home, agent, cancelled: Box::new(cancelled) })
    }

    /// How this Hub is spoken to.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The address of `path` in the Hub's API.
    pub fn api(&self, path: &str) -> String {
        format!("{}/api/{path}", self.remote.endpoint)
    }

    /// An error if the user has ended the work.
    pub fn check(&self) -> Result<()> {
        if (self.cancelled)() { Err(interrupted()) } else { Ok(()) }
    }

    /// Gets JSON, with the headers that came with it.
    pub fn get<T: DeserializeOwned>(&self, url: &str, told: Listener) -> Result<(T, HeaderMap)> {
        let call = Call { method: &Method::GET, url, headers: &[], body: &[] };
        self.answer(call, told)
    }

    /// Sends JSON, and gets the JSON of the answer.
    ///
    /// Not to be used for what must not be done twice: a request that seems lost is sent again.
    pub fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        body: &impl Serialize,
        told: Listener,
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|e| unreadable(url, &e))?;
        let headers = &[("content-type", "application/json")];
        let call = Call { method: &Method::POST, url, headers, body: &body };
        Ok(self.answer(call, told)?.0)
    }

    /// Makes the call until it succeeds or there is no hope, and reads the JSON of its answer.
    pub fn answer<T: DeserializeOwned>(
        &self,
        call: Call,
        told: Listener,
    ) -> Result<(T, HeaderMap)> {
        let read = || {
            let mut response = self.send(call)?;
            let body = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
            Ok((body.map_err(|e| self.lost(e, call.url))?, response.headers().clone()))
        };
        let (body, headers) = self.patiently("", told, read)?;
        let value = serde_json::from_slice(&body).map_err(|e| unreadable(call.url, &e))?;
        Ok((value, headers))
    }

    /// Attempts something until it succeeds or there is no hope. `path` is the file it is about.
    pub fn patiently<T>(
        &self,
        path: &str,
        told: Listener,
        attempt: impl Fn() -> Attempt<T>,
    ) -> Result<T> {
        let mut patience = Patience::new();
        loop {
            self.check()?;
            let failure = match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            self.check()?;
            let (wait, reason) = patience.wait(failure)?;
            told(Event::Retry { path, reason: &reason, wait });
            sleep(wait, || self.check())?;
        }
    }

    /// Makes one call, once, and follows where it is redirected to. The answer is one of success.
    pub fn send(&self, call: Call) -> Attempt<Response<Body>> {
        let mut url = call.url.to_owned();
        for _ in 0..REDIRECTS {
            let response = self.send_to(&url, call)?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let location = response.headers().get("location").and_then(|to| to.to_str().ok());
            match location.filter(|_| status.is_redirection()) {
                Some(to) => url = self.redirected(&response, to)?,
                None if !self.is_home(&url) => {
                    return Err(refusal::of_storage(response, &host(&url)));
                }
                None => return Err(refusal::of_status(response)),
            }
        }
        let message = format!("{} redirects in circles", host(&url));
        Err(Error::new(Kind::DownloadFailed, "", message).into())
    }

    /// The failure of a transfer from `url` that had begun.
    pub fn lost(&self, error: ureq::Error, url: &str) -> Failure {
        refusal::of_network(error, &host(url))
    }

    /// Does `work`, and cuts its connections off when the user has had enough of it.
    pub fn interruptible<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    thread::park_timeout(GLANCE);
                    if (self.cancelled)() {
                        return self.agent.clone().shutdown();
                    }
                }
            });
            let result = work();
            done.store(true, Ordering::Release);
            watcher.thread().unpark();
            result
        })
    }

    /// Makes one call, once, with the `size` bytes of `body`. No redirect is followed: what was
    /// read from the body could not be sent again.
    pub fn upload(&self, call: Call, body: &mut dyn Read, size: u64) -> Attempt<Response<Body>> {
        let failed = |e| self.lost(e, call.url);
        let request = self.request(call.url, call).header("content-length", size);
        let request = request.body(SendBody::from_reader(body));
        let request = request.map_err(|e| failed(ureq::Error::Http(e)))?;
        let response = self.agent.run(request).map_err(failed)?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal::of_status(response)),
        }
    }

    fn send_to(&self, url: &str, call: Call) -> Attempt<Response<Body>> {
        let request = self.request(url, call);
        let failed = |e| self.lost(e, url);
        let built = |e| failed(ureq::Error::Http(e));
        match call.body.is_empty() && call.method != Method::POST {
            true => self.agent.run(request.body(()).map_err(built)?).map_err(failed),
            false => self.agent.run(request.body(call.body).map_err(built)?).map_err(failed),
        }
    }

    /// The call as a request to `url`, with the token if that is the Hub itself.
    fn request(&self, url: &str, call: Call) -> Builder {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        for (name, value) in call.headers {
            // What it is redirected to is not shown a token that is another one's.
            if *name != "authorization" || is_same_host(url, call.url) {
                request = request.header(*name, *value);
            }
        }
        match self.remote.token.as_ref().filter(|_| self.is_home(url)) {
            Some(token) => request.header("authorization", format!("Bearer {}", token.secret())),
            None => request,
        }
    }

    /// True if what is sent to `url` can be read on its way no more than what is sent to the Hub.
    pub(crate) fn is_as_safe(&self, url: &str) -> bool {
        url.starts_with("https://") || self.home.scheme_str() == Some("http")
    }

    /// True if `url` is on the very host of the endpoint: only there the token may be shown.
    fn is_home(&self, url: &str) -> bool {
        is_same_host(url, &self.remote.endpoint)
    }

    /// The address that a redirect leads to.
    fn redirected(&self, response: &Response<Body>, to: &str) -> Attempt<String> {
        let from = response.get_uri();
        let scheme = from.scheme_str().unwrap_or("https");
        let authority = from.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let url = match to {
            _ if to.starts_with("https://") || to.starts_with("http://") => to.to_owned(),
            _ if to.starts_with("//") => format!("{scheme}:{to}"),
            _ if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
            _ => String::new(),
        };
        let safe = !(scheme == "https" && url.starts_with("http://"));
        match url.parse::<Uri>() {
            Ok(uri) if safe && uri.host().is_some() => Ok(url),
            _ => {
                let message = format!("{authority} redirects to where no file can be: {to}");
                Err(Error::new(Kind::DownloadFailed, "", message).into())
            }
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// An agent whose every setting is said here: the environment is the programs' to read.
fn agent(remote: &Remote) -> Result<Agent> {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("mlxk/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(remote.timeout))
        .timeout_connect(Some(remote.timeout))
        .timeout_per_read(Some(remote.timeout))
        .timeout_per_write(Some(remote.timeout))
        .input_buffer_size(BUFFER)
        .max_idle_connections(2 * IDLE)
        .max_idle_connections_per_host(IDLE)
        .tls_config(tls)
        .proxy(proxy(remote)?)
        .build();
    Ok(config.new_agent())
}

fn proxy(remote: &Remote) -> Result<Option<Proxy>> {
    let Some(wanted) = &remote.proxy else {
        return Ok(None);
    };
    let bad =
        |e| Error::new(Kind::Validation, &wanted.url, "not the address of a proxy").caused_by(e);
    let proxy = Proxy::new(&wanted.url).map_err(bad)?;
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let (Some(user), Some(password)) = (proxy.username(), proxy.password()) {
        builder = builder.username(user).password(password);
    }
    for host in &wanted.except {
        builder = builder.no_proxy(host);
    }
    builder.build().map(Some).map_err(bad)
}

/// True if two addresses are on the very same host, reached in the same way.
fn is_same_host(one: &str, other: &str) -> bool {
    let origin = |url: &str| {
        let uri = url.parse::<Uri>().ok()?;
        Some((uri.scheme()?.clone(), uri.host()?.to_lowercase(), uri.port_u16()))
    };
    origin(one).is_some_and(|one| origin(other) == Some(one))
}

/// The host of `url`, as errors name it.
fn host(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    uri.and_then(|uri| uri.authority().map(|a| a.as_str().to_owned())).unwrap_or_default()
}

fn unreadable(url: &str, error: &serde_json::Error) -> Error {
    let message = format!("{} does not answer like a Hub: {error}", host(url));
    Error::new(Kind::DownloadFailed, "", message).hint("HF_ENDPOINT names the Hub")
}
