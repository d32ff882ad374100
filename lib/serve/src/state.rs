//! The state that all routes share: the engine, the settings, the metrics, and the shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::HeaderValue;
use mlxk_processor::Engine;
use tokio::sync::watch;

use crate::auth::Key;
use crate::embed_backend::EmbedBackend;
use crate::held::HeldBodies;
use crate::log::Log;
use crate::metrics::Metrics;

/// Memory of the bodies of all requests together, in largest bodies.
const BODIES: usize = 4;

/// A server's state, which its routes share.
pub struct App {
    /// The engine that runs the models.
    pub(crate) engine: Box<dyn Engine>,
    /// The server's settings.
    pub(crate) settings: Settings,
    /// The server's counters and histograms.
    pub(crate) metrics: Metrics,
    /// Memory of the bodies of all requests.
    pub(crate) bodies: Arc<HeldBodies>,
    /// True if further requests are refused.
    closing: AtomicBool,
    /// True if running requests have to end now.
    aborted: watch::Sender<bool>,
}

impl App {
    /// A server's state over `engine`, with all metrics at zero.
    pub fn new(engine: impl Engine, settings: Settings) -> Arc<App> {
        let (closing, aborted) = (AtomicBool::new(false), watch::Sender::new(false));
        let (engine, metrics) = (Box::new(engine), Metrics::new());
        let largest = settings.max_body.max(settings.max_audio);
        let limit = largest.saturating_mul(BODIES);
        let bodies = HeldBodies::new(limit, settings.trim);
        Arc::new(App { engine, settings, metrics, bodies, closing, aborted })
    }

    /// Refuses all further requests with status 503; running ones go on.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// True if further requests are refused.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Ends all running requests with the error `server_shutdown`.
    pub(crate) fn abort(&self) {
        self.aborted.send_replace(true);
    }

    /// A receiver that turns true when running requests have to end.
    pub(crate) fn aborted(&self) -> watch::Receiver<bool> {
        self.aborted.subscribe()
    }
}

/// A server's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// API keys that are accepted; empty turns authentication off.
    pub keys: Vec<Key>,
    /// True if the server listens on loopback alone. Requests must then name a loopback host, which
    /// keeps out web pages that rebind their own DNS name to this machine.
    pub loopback: bool,
    /// Further names by which requests may call a server that listens on loopback alone.
    pub hosts: Vec<String>,
    /// Origins from which browsers may send requests (CORS), such as `https://example.org`.
    pub origins: Vec<HeaderValue>,
    /// True if unknown fields of a body are ignored instead of refused.
    pub lenient: bool,
    /// Largest body that is accepted, in bytes, but for audio. All bodies together may have four times
    /// as much as the largest one.
    pub max_body: usize,
    /// Largest audio file that is accepted, in bytes.
    pub max_audio: usize,
    /// Gives free memory of the allocator back to the system; called after large requests.
    pub trim: fn(),
    /// Connections that are open at once. A further one replaces the connection that has been idle
    /// longest.
    pub max_connections: usize,
    /// Default of `max_tokens` in completions; without it, OpenAI's 16 applies.
    pub max_tokens: Option<u64>,
    /// Timeouts of connections.
    pub times: Times,
    /// Another server that answers requests for embeddings to `/v1/embeddings`; this one does if none.
    pub embed_backend: Option<EmbedBackend>,
    /// The model that answers all requests for embeddings, whatever model they name.
    pub embed_only: Option<EmbedOnly>,
    /// The log that events go to.
    pub log: Log,
}

/// The one model of a server of embeddings, as embed-serve of mlx-knife has it.
#[derive(Clone, Debug)]
pub struct EmbedOnly {
    /// The name by which the engine knows the model.
    pub model: String,
    /// The name of the model in responses.
    pub identity: String,
    /// The content of the model and the device that runs it, in short.
    pub fingerprint: String,
}

/// Timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Timeout for the head of a request, and for the next request of an open connection.
    pub head: Duration,
    /// Timeout for the whole body of a request.
    pub body: Duration,
    /// Timeout for a client to accept more bytes of a response.
    pub write: Duration,
}
