//! The engine as the server sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mlxk_core::{Error, Found, Kind, Places, Result};
use mlxk_infer::request::{Preset, Rules};
use mlxk_infer::{Memory, Request as Parsed};
use mlxk_serve::{Engine, Events, Figures, Listed, Request};
use tokio::sync::{mpsc, oneshot};

use crate::catalogue::Catalogue;
use crate::desk::Hearer;
use crate::worker::{self, Order, Told};

/// What an engine may take, and what it does without being told.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Requests that are answered at once.
    pub batch: usize,
    /// Requests that may wait besides.
    pub queue: u64,
    /// Bytes for weights, texts and what is remembered of them.
    pub memory: u64,
    /// How long a model stays in memory that nobody asks.
    pub ttl: Option<Duration>,
    /// What models remember.
    pub texts: Memory,
    /// What holds for requests that do not say otherwise.
    pub preset: Preset,
}

/// The models of this machine.
pub struct Local {
    orders: Sender<Order>,
    catalogue: Catalogue,
    shared: Arc<Shared>,
    queue: u64,
    preset: Preset,
}

/// What the thread of the models tells.
#[derive(Default)]
pub struct Shared {
    /// Requests that were taken in and wait.
    pub waiting: AtomicU64,
    /// What else is known.
    pub figures: Mutex<Figures>,
    /// The models in memory.
    pub loaded: Mutex<Vec<Found>>,
}

impl Local {
    /// Starts the thread of the models, and loads those that are named.
    ///
    /// # Errors
    /// If one of them cannot be loaded.
    pub fn start(places: Places, bounds: Bounds, models: &[String]) -> Result<Local> {
        let mut catalogue = Catalogue::new(places);
        let found = models.iter().map(|model| catalogue.preload(model));
        let found: Vec<Found> = found.collect::<Result<_>>()?;
        let local = Local::begin(catalogue, bounds)?;
        for found in found {
            let (send, loaded) = channel();
            local.order(Order::Load(found, send))?;
            loaded.recv().map_err(|_| stopped())??;
        }
        Ok(local)
    }

    /// Starts the thread of the models, without any.
    pub(crate) fn begin(catalogue: Catalogue, bounds: Bounds) -> Result<Local> {
        let shared = Arc::new(Shared::default());
        let (orders, coming) = channel();
        let told = Told { shared: shared.clone(), bounds: bounds.clone() };
        thread::Builder::new()
            .name("models".to_owned())
            .spawn(move || worker::work(told, &coming))
            .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        let Bounds { queue, preset, .. } = bounds;
        Ok(Local { orders, catalogue, shared, queue, preset })
    }

    /// Tells the thread of the models what to do.
    pub(crate) fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).map_err(|_| stopped())
    }

    /// The request as a model takes it, and the model.
    fn understand(&self, request: &Request) -> Result<(Found, Parsed)> {
        let preset = Preset { raw: request.raw, ..self.preset.clone() };
        let mut parsed = Parsed::parse(&request.record, &preset)?;
        parsed.options.seed = request.seed.or(parsed.options.seed);
        Ok((self.catalogue.find(&request.model)?, parsed))
    }

    /// Makes the rules of a request ready on a thread of its own, which may take seconds that others
    /// are not to wait for, and then hands the request on.
    fn prepare(&self, found: Found, request: Parsed, rules: Rules, send: Hearer) -> Result<()> {
        let (orders, shared) = (self.orders.clone(), self.shared.clone());
        let prepared = move || {
            let (tell, told) = channel();
            let asked = orders.send(Order::Vocabulary(found.clone(), tell));
            let vocabulary = asked.ok().and_then(|()| told.recv().ok());
            let ready = match vocabulary.unwrap_or_else(|| Err(stopped())) {
                Ok(vocabulary) => vocabulary.ready(&rules),
                Err(e) => Err(e),
            };
            match ready {
                Ok(ready) => {
                    let (request, ready) = (Box::new(request), Some(Box::new(ready)));
                    // Without the thread of the models, the other end is told by `send` going away.
                    let _ = orders.send(Order::Answer { found, request, ready, send });
                }
                Err(e) => {
                    shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    // Who has gone needs no reason.
                    let _ = send.send(Err(e));
                }
            }
        };
        let thread = thread::Builder::new().name("rules".to_owned()).spawn(prepared);
        thread.map(|_| ()).map_err(|e| {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            Error::new(Kind::Execution, "", format!("no thread: {e}"))
        })
    }
}

impl Engine for Local {
    fn models(&self) -> Result<Vec<Listed>> {
        let loaded = self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.catalogue.list(&loaded)
    }

    fn submit(&self, request: Request) -> Result<Events> {
        let waiting = &self.shared.waiting;
        if waiting.fetch_add(1, Ordering::Relaxed) >= self.queue {
            waiting.fetch_sub(1, Ordering::Relaxed);
            let message = format!("{} requests wait, and no more may", self.queue);
            return Err(Error::new(Kind::QueueFull, "", message));
        }
        let understood = self.understand(&request).inspect_err(|_| {
            waiting.fetch_sub(1, Ordering::Relaxed);
        });
        let (found, request) = understood?;
        let (send, events) = mpsc::unbounded_channel();
        match request.rules.clone() {
            Some(rules) => self.prepare(found, request, rules, send)?,
            None => {
                let order = Order::Answer { found, request: Box::new(request), ready: None, send };
                self.order(order)?;
            }
        }
        Ok(events)
    }

    fn count(&self, request: Request) -> Result<oneshot::Receiver<Result<u64>>> {
        let (found, request) = self.understand(&request)?;
        let (send, count) = oneshot::channel();
        let order = Order::Count { found, request: Box::new(request), send };
        self.order(order)?;
        Ok(count)
    }

    fn room(&self) -> u64 {
        self.queue
    }

    fn figures(&self) -> Figures {
        let figures = self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner);
        Figures { waiting: self.shared.waiting.load(Ordering::Relaxed), ..figures.clone() }
    }
}

/// That the thread of the models has ended.
pub fn stopped() -> Error {
    Error::new(Kind::ServerShutdown, "", "the models are gone")
}
