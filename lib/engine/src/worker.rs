//! The thread of the models: who waits, who is answered, and which models are in memory.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mlxk_core::{Error, Found, Kind, Result};
use mlxk_infer::distributed::Party;
use mlxk_infer::{Ready, Request, Vocabulary};
use mlxk_serve::Figures;
use tokio::sync::oneshot;

use crate::catalogue::id;
use crate::desk::{self, Desk, Hearer, Weighed};
use crate::local::{Bounds, Shared};

/// Time between two looks for models that nobody asks.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread is asked to do.
pub enum Order {
    /// Load a model.
    Load(Found, Sender<Result<()>>),
    /// Load a part of one, which other processes have the rest of.
    Lead(Box<(Weighed, Party)>, Sender<Result<()>>),
    /// Answer a request.
    Answer {
        /// The model.
        found: Found,
        /// What it is asked.
        request: Box<Request>,
        /// Its rules, made ready.
        ready: Option<Box<Ready>>,
        /// Where the answer goes.
        send: Hearer,
    },
    /// Tell what rules are made ready with.
    Vocabulary(Found, Sender<Result<Vocabulary>>),
    /// Count the tokens of a prompt.
    Count {
        /// The model.
        found: Found,
        /// The request with the prompt.
        request: Box<Request>,
        /// Where the count goes.
        send: oneshot::Sender<Result<u64>>,
    },
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
    let mut worker = Worker { told, desks: Vec::new(), line: VecDeque::new() };
    while worker.hear(orders) {
        worker.admit();
        worker.desks.iter_mut().for_each(Desk::step);
        worker.rest();
        worker.tell();
    }
}

struct Worker {
    told: Told,
    desks: Vec<Desk>,
    /// Requests that wait, the first that came first.
    line: VecDeque<Waiting>,
}

/// A request that waits.
struct Waiting {
    found: Found,
    request: Box<Request>,
    ready: Option<Box<Ready>>,
    send: Hearer,
    /// Tokens of its prompt, once they were counted.
    prompt: Option<u64>,
}

/// What becomes of a request that waits.
enum Turn {
    /// It joins the desk at this place.
    Joins(usize, u64),
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
                // Who asked is the start of the engine, which waits.
                let _ = send.send(self.at_once(&found).map(|_| ()));
            }
            Order::Lead(model, send) => {
                let (weighed, party) = *model;
                let desk = Desk::lead(weighed, party, &self.told.bounds.texts);
                // As above.
                let _ = send.send(desk.map(|desk| self.desks.push(desk)));
                self.tell();
            }
            Order::Answer { found, request, ready, send } => {
                self.line.push_back(Waiting { found, request, ready, send, prompt: None });
            }
            // Who has gone needs no answer.
            Order::Vocabulary(found, send) => {
                let _ = send.send(self.at_once(&found).and_then(|desk| desk.vocabulary()));
            }
            Order::Count { found, request, send } => {
                let _ = send.send(self.at_once(&found).and_then(|desk| desk.count(&request)));
            }
        }
    }

    /// The desk of a model, for what does not wait in the line.
    fn at_once(&mut self, found: &Found) -> Result<&mut Desk> {
        match self.desk(found)? {
            Some(place) => Ok(&mut self.desks[place]),
            None => {
                let message = "no room for it as long as others are asked";
                Err(Error::new(Kind::InsufficientMemory, id(found), message))
            }
        }
    }

    /// Lets requests join that can, in their order.
    fn admit(&mut self) {
        let mut blocked = false;
        for mut waiting in std::mem::take(&mut self.line) {
            if waiting.send.is_closed() {
                self.leave_line();
                continue;
            }
            let turn = if blocked { Ok(Turn::Blocks) } else { self.turn(&mut waiting) };
            match turn {
                Ok(Turn::Joins(place, prompt)) => {
                    self.leave_line();
                    let Waiting { request, ready, send, .. } = waiting;
                    self.desks[place].join(&request, ready.map(|ready| *ready), prompt, send);
                }
                Ok(turn) => {
                    blocked |= matches!(turn, Turn::Blocks);
                    self.line.push_back(waiting);
                }
                Err(e) => {
                    self.leave_line();
                    // Who has gone needs no reason.
                    let _ = waiting.send.send(Err(e));
                }
            }
        }
    }

    fn turn(&mut self, waiting: &mut Waiting) -> Result<Turn> {
        if self.running() >= self.told.bounds.batch {
            return Ok(Turn::Waits);
        }
        let Some(place) = self.desk(&waiting.found)? else { return Ok(Turn::Blocks) };
        let prompt = match waiting.prompt {
            Some(prompt) => prompt,
            None => self.desks[place].count(&waiting.request)?,
        };
        waiting.prompt = Some(prompt);
        let need = self.desks[place].need(&waiting.request, prompt);
        let texts: u64 = self.desks.iter().map(Desk::texts).sum();
        let free = self.told.bounds.memory.saturating_sub(self.weights() + texts);
        match need <= free {
            true => Ok(Turn::Joins(place, prompt)),
            false if texts > 0 => Ok(Turn::Blocks),
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
        let weighed = desk::weigh(found)?;
        let (need, memory) = (weighed.weights, self.told.bounds.memory);
        if need > memory {
            let message = format!("its weights need {need} bytes, the server may use {memory}");
            return Err(Error::new(Kind::InsufficientMemory, id(found), message));
        }
        while self.weights() + need > memory {
            let idle = self.desks.iter().enumerate().filter(|(_, desk)| desk.running() == 0);
            let oldest = idle.min_by_key(|(_, desk)| desk.used).map(|(place, _)| place);
            let Some(oldest) = oldest else { return Ok(None) };
            self.desks.remove(oldest);
        }
        let desk = Desk::open(weighed, &self.told.bounds.texts)?;
        self.desks.push(desk);
        self.tell();
        Ok(Some(self.desks.len() - 1))
    }

    /// Unloads models that nobody asks.
    fn rest(&mut self) {
        if let Some(ttl) = self.told.bounds.ttl {
            let now = Instant::now();
            self.desks.retain(|desk| desk.running() > 0 || now - desk.used < ttl);
        }
    }

    fn running(&self) -> usize {
        self.desks.iter().map(Desk::running).sum()
    }

    fn weights(&self) -> u64 {
        self.desks.iter().map(|desk| desk.weights).sum()
    }

    fn leave_line(&self) {
        self.told.shared.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells how it is doing.
    fn tell(&self) {
        let figures = Figures {
            running: self.running() as u64,
            // Counted where requests are taken in.
            waiting: 0,
            models: self.desks.len() as u64,
            weights: self.weights(),
            texts: self.desks.iter().map(Desk::texts).sum(),
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
