//! The thread of the models: who waits, who is answered, and which models are in memory.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mlxk_core::{Error, Found, Kind, Result};
use mlxk_processor::Prepared;
use mlxk_processor::engine::Figures;

use super::catalog::id;
use super::guard::{Turn, guarded};
use super::loaded::{Desk, Hearer};
use super::shared::{Bounds, Shared};
use super::weigh::{self, Weighed};
use crate::distributed::Party;

/// Time between two looks for models that nobody asks.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
pub enum Order {
    /// Load a model.
    Load(Found, Sender<Result<()>>),
    /// Load a part of one, which other processes have the rest of.
    Lead(Box<(Weighed, Party)>, Sender<Result<()>>),
    /// Answer a request.
    Answer(Box<Waiting>),
}

/// A request that waits, made ready.
pub struct Waiting {
    /// The model.
    pub found: Found,
    /// What it is asked.
    pub prepared: Prepared,
    /// Where the answer goes.
    pub send: Hearer,
    /// Its place in the line.
    pub turn: Turn,
}

/// What the thread is told at its start.
pub struct Told {
    /// Where it tells how it is doing.
    pub shared: Arc<Shared>,
    /// What it may take.
    pub bounds: Bounds,
}

/// Does what is asked until nobody can ask any more.
pub fn work(told: Told, orders: &Receiver<Order>) {
    let mut worker = Worker { told, desks: Vec::new(), line: VecDeque::new(), blocked: None };
    while worker.hear(orders) {
        worker.admit();
        // A step may be long.
        worker.tell();
        worker.desks.iter_mut().for_each(Desk::step);
        worker.extend();
        worker.rest();
        worker.tell();
    }
}

struct Worker {
    told: Told,
    desks: Vec<Desk>,
    /// Requests that wait, the first that came first.
    line: VecDeque<Box<Waiting>>,
    /// The model that there was no room for, and what its weights need: so that its files are not
    /// read at every step.
    blocked: Option<(Found, u64)>,
}

/// What becomes of a request that waits.
enum Fate {
    /// It joins the desk at this place.
    Joins(usize),
    /// It waits for others like it to end; those behind it may pass.
    Waits,
    /// It waits for memory; nobody may pass, or it would wait for good.
    Blocks,
}

impl Worker {
    /// Takes in the orders that are there; waits for one if there is nothing else to do. False if
    /// there will be none.
    fn hear(&mut self, orders: &Receiver<Order>) -> bool {
        let idle = self.line.is_empty() && self.desks.iter().all(|desk| desk.running() == 0);
        let mut wait = if idle { self.patience() } else { Duration::ZERO };
        loop {
            match orders.recv_timeout(wait) {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            wait = Duration::ZERO;
        }
    }

    /// How long to wait for an order when there is nothing to do.
    fn patience(&self) -> Duration {
        match self.told.bounds.ttl {
            Some(_) if !self.desks.is_empty() => LOOK,
            _ => Duration::from_secs(3600),
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Load(found, send) => {
                let loaded = guarded(|| match self.desk(&found)? {
                    Some(_) => Ok(()),
                    None => {
                        let message = "no room for it beside the others";
                        Err(Error::new(Kind::InsufficientMemory, id(&found), message))
                    }
                });
                // Who asked is the start of the engine, which waits.
                let _ = send.send(loaded);
            }
            Order::Lead(model, send) => {
                let led = guarded(|| {
                    let (weighed, party) = *model;
                    let processors = &self.told.shared.processors;
                    let processor = processors.find(&weighed.facts.found, weigh::weigh_part)?;
                    let texts = &self.told.bounds.texts;
                    self.desks.push(Desk::lead(weighed, party, processor, texts)?);
                    self.tell();
                    Ok(())
                });
                // As above.
                let _ = send.send(led);
            }
            Order::Answer(waiting) => {
                let number = waiting.turn.number;
                let place = self.line.partition_point(|other| other.turn.number < number);
                self.line.insert(place, waiting);
            }
        }
    }

    /// Lets requests join that can, in their order.
    fn admit(&mut self) {
        let mut blocked = false;
        for waiting in std::mem::take(&mut self.line) {
            if waiting.send.is_closed() {
                continue;
            }
            let fate = if blocked { Ok(Fate::Blocks) } else { guarded(|| self.fate(&waiting)) };
            match fate {
                Ok(Fate::Joins(place)) => {
                    let Waiting { prepared, send, turn, .. } = *waiting;
                    drop(turn);
                    self.desks[place].join(prepared, send);
                }
                Ok(fate) => {
                    blocked |= matches!(fate, Fate::Blocks);
                    self.line.push_back(waiting);
                }
                Err(e) => {
                    let Waiting { send, turn, .. } = *waiting;
                    drop(turn);
                    // Who has gone needs no reason.
                    let _ = send.send(Err(e));
                }
            }
        }
    }

    fn fate(&mut self, waiting: &Waiting) -> Result<Fate> {
        if self.running() >= self.told.bounds.batch {
            return Ok(Fate::Waits);
        }
        let Some(place) = self.desk(&waiting.found)? else { return Ok(Fate::Blocks) };
        let need = self.desks[place].need(&waiting.prepared);
        let free = self.free();
        match need <= free {
            true => Ok(Fate::Joins(place)),
            false if self.running() > 0 => Ok(Fate::Blocks),
            false => Err(Error::new(
                Kind::InsufficientMemory,
                id(&waiting.found),
                format!("the text may need {need} bytes, {free} are free"),
            )
            .hint("a smaller max_tokens needs less")),
        }
    }

    /// The desk of a model, which is loaded if there is room, in the place of those that nobody
    /// asks if need be; none as long as others need the room.
    fn desk(&mut self, found: &Found) -> Result<Option<usize>> {
        if let Some(place) = self.desks.iter().position(|desk| desk.found == *found) {
            return Ok(Some(place));
        }
        let memory = self.told.bounds.memory;
        let busy = self.desks.iter().filter(|desk| desk.running() > 0);
        let busy: u64 = busy.map(Desk::weights).sum();
        if self.blocked.as_ref().is_some_and(|(known, need)| known == found && busy + need > memory)
        {
            return Ok(None);
        }
        let weighed = weigh::weigh(found)?;
        let need = weighed.cost.weights;
        if need > memory {
            let message = format!("its weights need {need} bytes, the server may use {memory}");
            return Err(Error::new(Kind::InsufficientMemory, id(found), message));
        }
        while self.weights() + need > memory {
            let idle = self.desks.iter().enumerate().filter(|(_, desk)| desk.running() == 0);
            let oldest = idle.min_by_key(|(_, desk)| desk.used).map(|(place, _)| place);
            let Some(oldest) = oldest else {
                self.blocked = Some((found.clone(), need));
                return Ok(None);
            };
            self.desks.remove(oldest);
        }
        let processor = self.told.shared.processors.find(found, weigh::weigh)?;
        let desk = Desk::open(weighed, processor, &self.told.bounds.texts)?;
        self.desks.push(desk);
        self.share();
        self.tell();
        Ok(Some(self.desks.len() - 1))
    }

    /// Lets answers go on that are longer than memory was kept for.
    fn extend(&mut self) {
        for place in 0..self.desks.len() {
            let free = self.free();
            self.desks[place].extend(free);
        }
    }

    /// Unloads models that failed, and those that nobody asks.
    fn rest(&mut self) {
        let (count, now) = (self.desks.len(), Instant::now());
        let old = |desk: &Desk| self.told.bounds.ttl.is_some_and(|ttl| now - desk.used >= ttl);
        self.desks.retain(|desk| !desk.failed() && (desk.running() > 0 || !old(desk)));
        if self.desks.len() < count {
            self.share();
        }
    }

    /// Shares what is for texts that are over among the models.
    fn share(&mut self) {
        let bytes = self.told.bounds.texts.prefix_bytes / self.desks.len().max(1) as u64;
        self.desks.iter_mut().for_each(|desk| desk.bound_prefixes(bytes));
    }

    /// Bytes that no model and no text may take.
    fn free(&self) -> u64 {
        let texts: u64 = self.desks.iter().map(Desk::texts).sum();
        self.told.bounds.memory.saturating_sub(self.weights() + texts)
    }

    fn running(&self) -> usize {
        self.desks.iter().map(Desk::running).sum()
    }

    fn weights(&self) -> u64 {
        self.desks.iter().map(Desk::weights).sum()
    }

    /// Tells how it is doing.
    fn tell(&self) {
        let figures = Figures {
            running: self.running() as u64,
            // Counted where requests are taken in.
            waiting: 0,
            models: self.desks.len() as u64,
            weight_bytes: self.weights(),
            sequence_bytes: self.desks.iter().map(Desk::texts).sum(),
            prefix_bytes: self.desks.iter().map(Desk::prefixes).sum(),
        };
        let shared = &self.told.shared;
        *shared.figures.lock().unwrap_or_else(PoisonError::into_inner) = figures;
        let mut loaded = shared.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.len() != self.desks.len() || !self.desks.iter().all(|d| loaded.contains(&d.found))
        {
            *loaded = self.desks.iter().map(|desk| desk.found.clone()).collect();
        }
    }
}
