//! Thread of the scheduler, which manages waiting requests, running requests and loaded models.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mlxk_core::{Error, Found, Kind, Result, Task};
use mlxk_processor::engine::Figures;

use super::catalog::id;
use super::costed::{self, Costed};
use super::guard::{Ticket, guarded};
use super::loaded::LoadedModel;
use super::resident::Resident;
use super::shared::{Bounds, Shared};
use super::work::{Loaded, Work};
use crate::distributed::Group;
use crate::prefill::Prefill;

/// Time between two searches for idle models.
const LOOK: Duration = Duration::from_secs(1);

/// Time between two looks at models that work on threads of their own.
const POLL: Duration = Duration::from_millis(10);

/// Command to the scheduler. The senders receive the result of loading.
pub enum SchedulerCommand {
    /// Load a model.
    Load(Found, Sender<Result<()>>),
    /// Load the part of a model that rank 0 holds; other processes hold the rest.
    Lead(Box<(Costed, Group)>, Sender<Result<()>>),
    /// Answer a request.
    Answer(Box<QueuedRequest>),
}

/// Prepared request that waits in the queue.
pub struct QueuedRequest {
    /// Model of the request.
    pub found: Found,
    /// Task whose adapter the model needs.
    pub adapter: Option<String>,
    /// The prepared request.
    pub work: Work,
    /// Ticket of the request, which orders the queue.
    pub ticket: Ticket,
}

/// Configuration of the scheduler.
pub struct SchedulerConfig {
    /// State that the threads of the engine share.
    pub shared: Arc<Shared>,
    /// Bounds of the engine.
    pub bounds: Bounds,
}

/// Runs commands until all senders of `commands` are dropped.
pub fn work(config: SchedulerConfig, commands: &Receiver<SchedulerCommand>) {
    let mut scheduler =
        Scheduler { config, models: Vec::new(), queue: VecDeque::new(), blocked: None };
    while scheduler.receive(commands) {
        scheduler.admit();
        // A step may be long: the figures of models just loaded are published before it.
        scheduler.publish();
        scheduler.step();
        scheduler.extend();
        scheduler.unload();
        scheduler.publish();
    }
}

struct Scheduler {
    config: SchedulerConfig,
    models: Vec<Loaded>,
    /// Requests that wait, in the order of their tickets.
    queue: VecDeque<Box<QueuedRequest>>,
    /// Model for which there was no room, and the bytes of its weights, kept to avoid reading its
    /// files again at every step.
    blocked: Option<(Found, u64)>,
}

/// Decision on a waiting request.
enum Admit {
    /// The request joins the model with this index.
    Join(usize),
    /// The request waits until the batch has room.
    Wait,
    /// The request waits for memory; later requests must not overtake it, to avoid starvation.
    Block,
}

impl Scheduler {
    /// Receives the commands that were sent; waits for one if there is no work. False if all
    /// senders are dropped.
    fn receive(&mut self, commands: &Receiver<SchedulerCommand>) -> bool {
        let mut wait = self.wait();
        loop {
            match commands.recv_timeout(wait) {
                Ok(command) => self.run(command),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            wait = Duration::ZERO;
        }
    }

    /// Time to wait for a command.
    fn wait(&self) -> Duration {
        let running = || self.models.iter().filter(|model| model.running() > 0);
        match running().next() {
            None if self.queue.is_empty() => self.timeout(),
            Some(_) if running().all(|model| !model.steps()) => POLL,
            _ => Duration::ZERO,
        }
    }

    /// Time to wait for a command when there is no work.
    fn timeout(&self) -> Duration {
        match self.config.bounds.ttl {
            Some(_) if !self.models.is_empty() => LOOK,
            _ => Duration::from_secs(3600),
        }
    }

    fn run(&mut self, command: SchedulerCommand) {
        match command {
            SchedulerCommand::Load(found, send) => {
                let loaded = guarded(|| match self.find_or_load(&found, None)? {
                    Some(_) => Ok(()),
                    None => {
                        let message = "no room for it beside the others";
                        Err(Error::new(Kind::InsufficientMemory, id(&found), message))
                    }
                });
                // The start of the engine waits for this.
                let _ = send.send(loaded);
            }
            SchedulerCommand::Lead(model, send) => {
                let led = guarded(|| {
                    let (costed, group) = *model;
                    let processors = &self.config.shared.processors;
                    let processor =
                        processors.find(&costed.facts.found, costed::processor_of_part)?;
                    let options = &self.config.bounds.cache;
                    let model = LoadedModel::lead(costed, group, processor, options)?;
                    self.models.push(Loaded::Text(Box::new(model)));
                    self.publish();
                    Ok(())
                });
                // The start of the engine waits for this.
                let _ = send.send(led);
            }
            SchedulerCommand::Answer(waiting) => {
                let number = waiting.ticket.number;
                let place = self.queue.partition_point(|other| other.ticket.number < number);
                self.queue.insert(place, waiting);
            }
        }
    }

    /// Lets requests join their models, in the order of the queue.
    fn admit(&mut self) {
        let mut blocked = false;
        for waiting in std::mem::take(&mut self.queue) {
            if waiting.work.is_closed() {
                continue;
            }
            let admit_request =
                if blocked { Ok(Admit::Block) } else { guarded(|| self.admit_request(&waiting)) };
            match admit_request {
                Ok(Admit::Join(place)) => {
                    let QueuedRequest { work, ticket, .. } = *waiting;
                    drop(ticket);
                    self.models[place].join(work);
                }
                Ok(admit_request) => {
                    blocked |= matches!(admit_request, Admit::Block);
                    self.queue.push_back(waiting);
                }
                Err(e) => {
                    let QueuedRequest { work, ticket, .. } = *waiting;
                    drop(ticket);
                    work.fail(e);
                }
            }
        }
    }

    fn admit_request(&mut self, waiting: &QueuedRequest) -> Result<Admit> {
        if self.running_beside(waiting) >= self.most_beside(&waiting.work) {
            return Ok(Admit::Wait);
        }
        let adapter = waiting.adapter.as_deref();
        let Some(place) = self.find_or_load(&waiting.found, adapter)? else {
            return Ok(Admit::Block);
        };
        let need = self.models[place].need(&waiting.work);
        let free = self.free();
        match need <= free {
            true => Ok(Admit::Join(place)),
            false if self.running() > 0 => Ok(Admit::Block),
            false => Err(Error::new(
                Kind::InsufficientMemory,
                id(&waiting.found),
                format!("the text may need {need} bytes, {free} are free"),
            )
            .hint("a smaller max_tokens needs less")),
        }
    }

    /// Index of a model, which is loaded if there is room; idle models are unloaded for it, the least
    /// recently used first. `None` while busy models need the room.
    fn find_or_load(&mut self, found: &Found, adapter: Option<&str>) -> Result<Option<usize>> {
        let same = |model: &Loaded| model.found() == found && model.adapter() == adapter;
        if let Some(place) = self.models.iter().position(same) {
            return Ok(Some(place));
        }
        let memory = self.config.bounds.memory;
        let busy = self.models.iter().filter(|model| model.running() > 0);
        let busy: u64 = busy.map(|model| model.weights()).sum();
        if self.blocked.as_ref().is_some_and(|(known, need)| known == found && busy + need > memory)
        {
            return Ok(None);
        }
        let costed = costed::read(found)?;
        let need = costed.cost.tensors();
        if need > memory {
            let message = format!("its weights need {need} bytes, the server may use {memory}");
            return Err(Error::new(Kind::InsufficientMemory, id(found), message));
        }
        while self.weights() + need > memory {
            let idle = self.models.iter().enumerate().filter(|(_, model)| model.running() == 0);
            let oldest = idle.min_by_key(|(_, model)| model.used()).map(|(place, _)| place);
            let Some(oldest) = oldest else {
                self.blocked = Some((found.clone(), need));
                return Ok(None);
            };
            self.models.remove(oldest);
        }
        let (processors, options) = (&self.config.shared.processors, &self.config.bounds.cache);
        let model = Loaded::open(costed, adapter.map(str::to_owned), processors, options)?;
        self.models.push(model);
        self.divide_prefix_bytes();
        self.publish();
        Ok(Some(self.models.len() - 1))
    }

    /// Lets all models take a step, one after another: the prompts of each, and the texts of embedding
    /// models and rerankers, wait for the tokens of all, and must not keep those waiting.
    fn step(&mut self) {
        let streams: Option<Duration> = self.models.iter().map(|model| model.decode_time()).sum();
        let prefilling = self.models.iter().filter(|model| model.prefills()).count() as u32;
        let streams = streams.map(|time| time / prefilling.max(1));
        self.models.iter_mut().for_each(|model| model.step(Prefill::Fair { streams }));
    }

    /// Reserves memory for answers that have used up their reservation.
    fn extend(&mut self) {
        for place in 0..self.models.len() {
            let free = self.free();
            self.models[place].extend(free);
        }
    }

    /// Unloads models that failed, and those idle for longer than the limit.
    fn unload(&mut self) {
        let (count, now) = (self.models.len(), Instant::now());
        let old =
            |model: &Loaded| self.config.bounds.ttl.is_some_and(|ttl| now - model.used() >= ttl);
        self.models.retain(|model| !model.failed() && (model.running() > 0 || !old(model)));
        if self.models.len() < count {
            self.divide_prefix_bytes();
        }
    }

    /// Divides the bytes of the prefix caches evenly among the models.
    fn divide_prefix_bytes(&mut self) {
        let bytes = self.config.bounds.cache.prefix_bytes / self.models.len().max(1) as u64;
        self.models.iter_mut().for_each(|model| model.limit_prefix_cache(bytes));
    }

    /// Bytes that are neither taken by weights nor reserved for sequences.
    fn free(&self) -> u64 {
        let sequences: u64 = self.models.iter().map(|model| model.sequence_bytes()).sum();
        self.config.bounds.memory.saturating_sub(self.weights() + sequences)
    }

    fn running(&self) -> usize {
        self.models.iter().map(|model| model.running()).sum()
    }

    /// Number of running requests that share a batch with `waiting`: answers do with answers, texts to
    /// embed or score with such texts, and speech with that of the same model.
    fn running_beside(&self, waiting: &QueuedRequest) -> usize {
        let like = |model: &&Loaded| match (&waiting.work, model) {
            (Work::Text(..), Loaded::Text(_)) => true,
            (Work::Speech(_), Loaded::Speech(speech)) => *speech.found() == waiting.found,
            (Work::Embed(_) | Work::Score(_), Loaded::Embedder(_) | Loaded::Reranker(_)) => true,
            _ => false,
        };
        self.models.iter().filter(like).map(|model| model.running()).sum()
    }

    /// Maximum number of requests that share a batch with `work`; a speech model answers one at a time.
    fn most_beside(&self, work: &Work) -> usize {
        match work {
            Work::Speech(_) => 1,
            _ => self.config.bounds.batch,
        }
    }

    fn weights(&self) -> u64 {
        self.models.iter().map(|model| model.weights()).sum()
    }

    /// Publishes the figures and the models in memory.
    fn publish(&self) {
        let figures = Figures {
            running: self.running() as u64,
            // The shared counter has it.
            waiting: 0,
            models: self.models.len() as u64,
            weight_bytes: self.weights(),
            sequence_bytes: self.models.iter().map(|model| model.sequence_bytes()).sum(),
            prefix_bytes: self.models.iter().map(|model| model.prefix_bytes()).sum(),
        };
        let shared = &self.config.shared;
        *shared.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        let mut loaded = shared.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(known, model): (&(Found, Task), &Loaded)| known.0 == *model.found();
        if loaded.len() != self.models.len() || !loaded.iter().zip(&self.models).all(same) {
            let entry = |model: &Loaded| (model.found().clone(), model.task());
            *loaded = self.models.iter().map(entry).collect();
        }
    }
}
