//! The engine that a server submits requests to.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{SendError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use mlxk_core::{Error, Found, Kind, Places, Result, Task};
use mlxk_processor::engine::{
    EmbedRequest, Embeddings, Engine, Events, Figures, ModelInfo, ScoreRequest, Scores,
    TranscriptEvents,
};
use mlxk_processor::request::{Preset, Request};
use mlxk_processor::transcript::TranscribeRequest;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{mpsc, oneshot};

use super::catalog::{Catalogue, id};
use super::costed;
use super::encoding;
use super::guard::{Ticket, guarded};
use super::hearing;
use super::shared::{Bounds, Shared, stopped};
use super::work::Work;
use super::worker::{self, QueuedRequest, SchedulerCommand, SchedulerConfig};
use crate::thread::WorkerThread;

/// Ordinary requests that are prepared concurrently, in milliseconds each.
const PREPARED: usize = 3;

/// Large requests, and those with rules, that are prepared concurrently: each may take seconds and
/// some hundred megabytes.
const PREPARED_SLOW: usize = 2;

/// Size from which a request is large, in bytes.
const LARGE: usize = 256 << 10;

/// Engine that runs the models of this machine.
pub struct Local {
    commands: Sender<SchedulerCommand>,
    /// Thread of the scheduler, which ends when `commands` is dropped: the field order matters.
    _models: WorkerThread,
    catalogue: Catalogue,
    /// State that the threads of the engine share.
    pub shared: Arc<Shared>,
    /// Threads that prepare requests, so that the scheduler does not wait for it.
    preparing: ThreadPool,
    /// Threads that prepare large requests and those with rules.
    preparing_slow: ThreadPool,
    queue: u64,
    preset: Preset,
}

impl Local {
    /// Starts an engine for the models in `places`, and loads `models`.
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
            local.send(SchedulerCommand::Load(found, send))?;
            loaded.recv().map_err(|_| stopped())??;
        }
        Ok(local)
    }

    /// Starts an engine without any model in memory.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn begin(catalogue: Catalogue, bounds: Bounds) -> Result<Local> {
        let shared = Arc::new(Shared::default());
        let (commands, coming) = channel();
        let config = SchedulerConfig { shared: shared.clone(), bounds: bounds.clone() };
        let models = thread::Builder::new()
            .name("models".to_owned())
            .spawn(move || worker::work(config, &coming))
            .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        let preparing = threads(PREPARED, "prepare")?;
        let preparing_slow = threads(PREPARED_SLOW, "prepare slow")?;
        let Bounds { queue, preset, .. } = bounds;
        Ok(Local {
            commands,
            _models: WorkerThread::new(models),
            catalogue,
            shared,
            preparing,
            preparing_slow,
            queue,
            preset,
        })
    }

    /// Sends a command to the thread of the scheduler.
    ///
    /// # Errors
    /// [`Kind::ServerShutdown`] if the thread has ended.
    pub fn send(&self, command: SchedulerCommand) -> Result<()> {
        self.commands.send(command).map_err(|_| stopped())
    }

    /// Threads that prepare a request.
    fn pool(&self, request: &Request) -> &ThreadPool {
        let slow = request.rules.is_some() || request.weight() > LARGE;
        if slow { &self.preparing_slow } else { &self.preparing }
    }

    /// Models in memory, with their tasks.
    fn loaded(&self) -> Vec<(Found, Task)> {
        self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Model of a request for `task`: the one called `name`, or the one in memory if that is empty.
    fn find(&self, name: &str, task: Task) -> Result<Found> {
        if !name.is_empty() {
            return self.catalogue.find(name);
        }
        let mut own: Vec<Found> = self
            .loaded()
            .into_iter()
            .filter(|(_, own)| *own == task)
            .map(|(found, _)| found)
            .collect();
        // A model may be in memory more than once, with several adapters.
        own.dedup();
        match &own[..] {
            [found] => Ok(found.clone()),
            [] => {
                let message =
                    format!("`model` is missing, and no model for {} is loaded", task.name());
                Err(Error::validation(message).hint("GET /v1/models lists them"))
            }
            _ => {
                let names: Vec<String> = own.iter().map(id).collect();
                let message = format!("`model` is missing, and {} models are loaded", own.len());
                Err(Error::validation(message).hint(format!("one of {}", names.join(", "))))
            }
        }
    }

    /// Lets `prepare` prepare a request for `found` on a thread of `pool`, and queues what it returns.
    fn prepare(
        &self,
        pool: &ThreadPool,
        found: Found,
        ticket: Ticket,
        prepare: impl FnOnce(&Shared, (Found, Ticket)) -> Option<QueuedRequest> + Send + 'static,
    ) {
        let (shared, commands) = (Arc::clone(&self.shared), self.commands.clone());
        pool.spawn(move || {
            if let Some(request) = prepare(&shared, (found, ticket)) {
                enqueue(&commands, request);
            }
        });
    }

    /// Model of a request, and the request with the preset of this engine.
    fn resolve(&self, request: Request) -> Result<(Found, Request)> {
        let found = self.catalogue.find(&request.model)?;
        Ok((found, self.preset.apply(request)))
    }
}

impl Engine for Local {
    fn models(&self) -> Result<Vec<ModelInfo>> {
        let loaded: Vec<Found> = self.loaded().into_iter().map(|(found, _)| found).collect();
        self.catalogue.list(&loaded)
    }

    fn submit(&self, request: Request) -> Result<Events> {
        let ticket = Ticket::take(&self.shared, self.queue)?;
        let (found, request) = self.resolve(request)?;
        let (send, events) = mpsc::unbounded_channel();
        let pool = self.pool(&request);
        self.prepare(pool, found, ticket, move |shared, (found, ticket)| {
            if send.is_closed() {
                return None;
            }
            let prepared = guarded(|| {
                let processor = shared.processors.find(&found, costed::processor)?;
                processor.prepare_unless(&request, &|| send.is_closed())
            });
            // Whoever hears of the result may rely on the memory.
            drop(request);
            match prepared {
                Ok(prepared) => {
                    let work = Work::Text(Box::new(prepared), send);
                    Some(QueuedRequest { found, adapter: None, work, ticket })
                }
                Err(e) => {
                    drop(ticket);
                    // A client that has gone needs no error.
                    let _ = send.send(Err(e));
                    None
                }
            }
        });
        Ok(events)
    }

    fn count(&self, request: Request) -> Result<oneshot::Receiver<Result<u64>>> {
        let ticket = Ticket::take(&self.shared, self.queue)?;
        let (found, request) = self.resolve(request)?;
        let (send, count) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        self.pool(&request).spawn(move || {
            if send.is_closed() {
                return;
            }
            let count = guarded(|| {
                let processor = shared.processors.find(&found, costed::processor)?;
                processor.count(&request, &|| send.is_closed())
            });
            drop((request, ticket));
            // A client that has disconnected needs no count.
            let _ = send.send(count);
        });
        Ok(count)
    }

    fn embed(&self, request: EmbedRequest) -> Result<oneshot::Receiver<Result<Embeddings>>> {
        let ticket = Ticket::take(&self.shared, self.queue)?;
        let found = self.find(&request.model, Task::Embedding)?;
        let (send, embeddings) = oneshot::channel();
        self.prepare(&self.preparing, found, ticket, |shared, taken| {
            encoding::embed(shared, taken, request, send)
        });
        Ok(embeddings)
    }

    fn score(&self, request: ScoreRequest) -> Result<oneshot::Receiver<Result<Scores>>> {
        let ticket = Ticket::take(&self.shared, self.queue)?;
        let found = self.find(&request.model, Task::Rerank)?;
        let (send, scores) = oneshot::channel();
        self.prepare(&self.preparing, found, ticket, move |shared, taken| {
            encoding::score(shared, taken, &request, send)
        });
        Ok(scores)
    }

    fn transcribe(&self, request: TranscribeRequest) -> Result<TranscriptEvents> {
        let ticket = Ticket::take(&self.shared, self.queue)?;
        let found = self.find(&request.model, Task::Audio)?;
        let (send, events) = mpsc::unbounded_channel();
        self.prepare(&self.preparing, found, ticket, |_, taken| {
            hearing::prepare(taken, request, send)
        });
        Ok(events)
    }

    fn queue_capacity(&self) -> u64 {
        self.queue
    }

    fn figures(&self) -> Figures {
        let figures = self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner);
        Figures { waiting: self.shared.waiting.load(Ordering::Relaxed), ..figures.clone() }
    }
}

/// Pool of `count` threads called `name`.
fn threads(count: usize, name: &'static str) -> Result<ThreadPool> {
    let pool = ThreadPoolBuilder::new().num_threads(count);
    let pool = pool.thread_name(move |n| format!("{name} {n}")).build();
    pool.map_err(|e| Error::new(Kind::Execution, "", format!("no threads: {e}")))
}

fn enqueue(commands: &Sender<SchedulerCommand>, waiting: QueuedRequest) {
    if let Err(SendError(SchedulerCommand::Answer(waiting))) =
        commands.send(SchedulerCommand::Answer(Box::new(waiting)))
    {
        waiting.work.fail(stopped());
    }
}
