//! The engine as the server sees it.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{SendError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use mlxk_core::{Error, Found, Kind, Places, Result};
use mlxk_processor::engine::{Engine, Events, Figures, ModelInfo};
use mlxk_processor::request::{Preset, Request};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{mpsc, oneshot};

use super::catalog::Catalogue;
use super::guard::{Turn, guarded};
use super::shared::{Bounds, Shared, stopped};
use super::weigh;
use super::worker::{self, Order, Told, Waiting};
use crate::thread::Working;

/// Requests that are made ready at once: each may take a core and some hundred megabytes.
const PREPARED: usize = 4;

/// The models of this machine.
pub struct Local {
    orders: Sender<Order>,
    /// Comes after what it ends by.
    _models: Working,
    catalogue: Catalogue,
    /// State that the thread of the models shares with those who ask it.
    pub shared: Arc<Shared>,
    /// Where requests are made ready, which others are not to wait for.
    preparing: ThreadPool,
    queue: u64,
    preset: Preset,
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
    pub fn begin(catalogue: Catalogue, bounds: Bounds) -> Result<Local> {
        let shared = Arc::new(Shared::default());
        let (orders, coming) = channel();
        let told = Told { shared: shared.clone(), bounds: bounds.clone() };
        let models = thread::Builder::new()
            .name("models".to_owned())
            .spawn(move || worker::work(told, &coming))
            .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        let preparing = ThreadPoolBuilder::new().num_threads(PREPARED);
        let preparing = preparing.thread_name(|n| format!("prepare {n}")).build();
        let preparing =
            preparing.map_err(|e| Error::new(Kind::Execution, "", format!("no threads: {e}")))?;
        let Bounds { queue, preset, .. } = bounds;
        Ok(Local {
            orders,
            _models: Working::new(models),
            catalogue,
            shared,
            preparing,
            queue,
            preset,
        })
    }

    /// Tells the thread of the models what to do.
    pub fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).map_err(|_| stopped())
    }

    /// Model of a request, and the request with the preset of this engine.
    fn resolve(&self, request: Request) -> Result<(Found, Request)> {
        let found = self.catalogue.find(&request.model)?;
        Ok((found, self.preset.apply(request)))
    }
}

impl Engine for Local {
    fn models(&self) -> Result<Vec<ModelInfo>> {
        let loaded = self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.catalogue.list(&loaded)
    }

    fn submit(&self, request: Request) -> Result<Events> {
        let turn = Turn::take(&self.shared, self.queue)?;
        let (found, request) = self.resolve(request)?;
        let (send, events) = mpsc::unbounded_channel();
        let (shared, orders) = (Arc::clone(&self.shared), self.orders.clone());
        self.preparing.spawn(move || {
            let prepare = || shared.processors.find(&found, weigh::weigh)?.prepare(&request);
            if send.is_closed() {
                return;
            }
            match guarded(prepare) {
                Ok(prepared) => line_up(&orders, Waiting { found, prepared, send, turn }),
                Err(e) => {
                    drop(turn);
                    // Who has gone needs no reason.
                    let _ = send.send(Err(e));
                }
            }
        });
        Ok(events)
    }

    fn count(&self, request: Request) -> Result<oneshot::Receiver<Result<u64>>> {
        let turn = Turn::take(&self.shared, self.queue)?;
        let (found, request) = self.resolve(request)?;
        let (send, count) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        self.preparing.spawn(move || {
            let count = || shared.processors.find(&found, weigh::weigh)?.count(&request);
            if send.is_closed() {
                return;
            }
            let count = guarded(count);
            drop(turn);
            // As above.
            let _ = send.send(count);
        });
        Ok(count)
    }

    fn queue_capacity(&self) -> u64 {
        self.queue
    }

    fn figures(&self) -> Figures {
        let figures = self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner);
        Figures { waiting: self.shared.waiting.load(Ordering::Relaxed), ..figures.clone() }
    }
}

fn line_up(orders: &Sender<Order>, waiting: Waiting) {
    if let Err(SendError(Order::Answer(waiting))) = orders.send(Order::Answer(Box::new(waiting))) {
        // As above.
        let _ = waiting.send.send(Err(stopped()));
    }
}
