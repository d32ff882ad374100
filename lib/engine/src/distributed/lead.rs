//! Leader of a group of ranks: rank 0, which assigns parts and sends commands.

use std::cell::{Cell, RefCell};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use mlx_rs::error::{Exception, Result as Computed};
use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_models::checkpoint::part::{Part, Split};
use mlxk_tensor::cache::Remote;
use mlxk_tensor::collective;

use super::follow;
use super::partition::choose;
use super::rank_config::{RankConfig, gone};
use super::wire::{Hello, MessageReader, RankCommand, RankReply, send_message};
use crate::forward::{Pass, Ranks};
use crate::load;
use crate::model::Model;

/// Time to wait for the first message of a connection; other programs than ranks may connect too.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Group of ranks that have connected and got their parts, before the model is loaded.
pub struct Group {
    config: RankConfig,
    part: Part,
    bytes: u64,
    watch: Watch,
    replies: Vec<Receiver<RankReply>>,
}

/// Monitor of the connections to the other ranks, which detects a lost one and can end all ranks.
#[derive(Clone, Debug)]
pub struct Watch {
    streams: Arc<Mutex<Vec<TcpStream>>>,
    lost: Arc<OnceLock<Error>>,
}

impl Watch {
    /// Error that ended the work of all ranks, if any.
    pub fn lost(&self) -> Option<Error> {
        self.lost.get().cloned()
    }

    /// Sends all ranks the command to end.
    pub fn end(&self) {
        // A rank that has ended needs no command.
        let _ = self.tell(&RankCommand::End);
    }

    fn tell(&self, command: &RankCommand) -> std::io::Result<()> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.iter().try_for_each(|line| send_message(line, command))
    }

    fn lose(&self, error: Error) {
        // Later errors follow from the first one.
        let _ = self.lost.set(error);
    }
}

impl Group {
    /// Waits for the other ranks and assigns their parts. `memory` is the limit of rank 0, in
    /// bytes; `said` receives a line for each rank that connects.
    ///
    /// # Errors
    /// If a rank has another model, another version of the program or another kind of device, or the
    /// model cannot be split.
    pub fn gather(
        config: &RankConfig,
        (facts, plan): (&Facts, &Plan),
        memory: u64,
        split: Option<Split>,
        said: &dyn Fn(String),
    ) -> Result<Group> {
        let own = follow::hello(config, facts, memory)?;
        let failed = |e| cannot(config, &e);
        let listener = TcpListener::bind(config.first).map_err(failed)?;
        said(format!("{} ranks are to come to {}", config.size - 1, config.first));
        let mut others: Vec<Option<(Hello, TcpStream, MessageReader)>> = Vec::new();
        others.resize_with(config.size - 1, || None);
        while others.iter().any(Option::is_none) {
            let (stream, from) = listener.accept().map_err(failed)?;
            let Some((hello, reader)) = introduced(&stream) else { continue };
            if let Err(why) = alike(&own, &hello, &others) {
                // The rank may have gone already.
                let _ = send_message(&stream, &RankCommand::Refused(why.clone()));
                return Err(Error::new(Kind::Command, format!("rank {}", hello.rank), why));
            }
            said(format!("rank {} is there, from {from}", hello.rank));
            let seat = hello.rank - 1;
            others[seat] = Some((hello, stream, reader));
        }
        // The group of MLX needs this address next.
        drop(listener);
        let others: Vec<(Hello, TcpStream, MessageReader)> = others.into_iter().flatten().collect();
        let free: Vec<u64> =
            [memory].into_iter().chain(others.iter().map(|(hello, ..)| hello.memory)).collect();
        let parts = choose(facts, plan, &free, split).map_err(|mut e| {
            for (_, stream, _) in &others {
                // The rank may have gone already.
                let _ = send_message(stream, &RankCommand::Refused(e.message.clone()));
            }
            e.subject = facts.found.name.clone();
            e
        })?;
        Group::start(config, &parts, others)
    }

    /// Sends the other ranks their parts, and starts a thread for each that receives its replies.
    fn start(
        config: &RankConfig,
        parts: &[(Part, u64)],
        others: Vec<(Hello, TcpStream, MessageReader)>,
    ) -> Result<Group> {
        let (streams, lost) = (Arc::default(), Arc::default());
        let watch = Watch { streams, lost };
        let mut replies = Vec::new();
        let mut streams = Vec::new();
        for (hello, stream, reader) in others {
            let rank = hello.rank;
            send_message(&stream, &RankCommand::Start(parts[rank].0)).map_err(|_| gone(rank))?;
            streams.push(stream);
            let (sender, receiver) = channel();
            replies.push(receiver);
            let watch = watch.clone();
            thread::Builder::new()
                .name(format!("rank {rank}"))
                .spawn(move || listen(rank, reader, &sender, &watch))
                .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        }
        *watch.streams.lock().unwrap_or_else(PoisonError::into_inner) = streams;
        let (part, bytes) = parts[0];
        Ok(Group { config: config.clone(), part, bytes, watch, replies })
    }

    /// Part of the model that rank 0 holds.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Bytes of the weights of rank 0.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Connections to the other ranks.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Loads the part of this rank, while the others load theirs.
    ///
    /// # Errors
    /// If a rank cannot load its part.
    pub fn load(self, facts: &Facts, plan: &Plan) -> Result<Model> {
        let Group { config, part, watch, replies, .. } = self;
        collective::join(config.backend, config.rank, config.size)?;
        let mut model = load::load_part(facts, plan, config.on_cpu, Some(part))?;
        let lost = || watch.lost().unwrap_or_else(|| gone(1));
        let (mut forgets, mut blocks) = (true, false);
        for reply in &replies {
            match reply.recv() {
                Ok(RankReply::Ready { forgets: own, blocks: has }) => {
                    forgets &= own;
                    blocks |= has;
                }
                _ => return Err(lost()),
            }
        }
        let others = Followers { watch, replies, sequences: 0, forgets, blocks };
        model.forward.ranks = Some(Rc::new(SharedFollowers(Rc::new(RefCell::new(others)))));
        Ok(model)
    }
}

/// Forwards the replies of a rank until its connection ends.
fn listen(rank: usize, mut reader: MessageReader, replies: &Sender<RankReply>, watch: &Watch) {
    loop {
        match reader.read() {
            Ok(Some(RankReply::Failed(why))) => {
                return watch.lose(Error::new(Kind::Execution, format!("rank {rank}"), why));
            }
            Ok(Some(reply)) => {
                if replies.send(reply).is_err() {
                    return;
                }
            }
            Ok(None) | Err(_) => return watch.lose(gone(rank)),
        }
    }
}

/// First message of a rank that connected; `None` if the peer is not a rank.
fn introduced(stream: &TcpStream) -> Option<(Hello, MessageReader)> {
    // Connections of other programs are ignored.
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(HELLO_TIMEOUT)).ok()?;
    let mut reader = MessageReader::new(stream.try_clone().ok()?);
    let Ok(Some(RankReply::Hello(hello))) = reader.read() else { return None };
    stream.set_read_timeout(None).ok()?;
    Some((hello, reader))
}

/// Errors with the reason if a rank cannot take part.
fn alike<T>(own: &Hello, hello: &Hello, others: &[Option<T>]) -> std::result::Result<(), String> {
    let seat = hello.rank.checked_sub(1).and_then(|seat| others.get(seat));
    let device = |on_cpu| if on_cpu { "a CPU" } else { "a GPU" };
    match seat {
        None => Err(format!("there are {} ranks, counted from 0", others.len() + 1)),
        Some(Some(_)) => Err("it is there twice".to_owned()),
        Some(None) if hello.version != own.version => {
            Err(format!("its program is version {}, rank 0's {}", hello.version, own.version))
        }
        Some(None) if hello.model != own.model => Err("its model is another one".to_owned()),
        Some(None) if hello.on_cpu != own.on_cpu => Err(format!(
            "it computes on {}, rank 0 on {}",
            device(hello.on_cpu),
            device(own.on_cpu)
        )),
        Some(None) => Ok(()),
    }
}

fn cannot(config: &RankConfig, error: &std::io::Error) -> Error {
    Error::new(Kind::Command, config.first.to_string(), error.to_string())
        .hint("the first address of the hostfile is one of the machine of rank 0")
}

/// Other ranks of a loaded model, with the connections to them.
pub struct Followers {
    watch: Watch,
    replies: Vec<Receiver<RankReply>>,
    /// Number of sequences so far; the last one has this number.
    sequences: u64,
    forgets: bool,
    /// True if the tokens of a block attend to each other in a layer of a rank.
    blocks: bool,
}

impl Followers {
    /// Sends the ranks the command to run the next tokens of sequences.
    ///
    /// # Errors
    /// If a rank has ended.
    pub fn pass(&self, pass: Pass) -> Computed<()> {
        let failed = |e| Exception::custom(format!("a rank has gone: {e}"));
        self.watch.tell(&RankCommand::Pass(pass)).map_err(failed)
    }

    fn tell(&self, command: &RankCommand) {
        // A rank that has ended is detected at the next pass.
        let _ = self.watch.tell(command);
    }

    fn next(&mut self) -> u64 {
        self.sequences += 1;
        self.sequences
    }
}

/// Other ranks as the forward pass of rank 0 uses them.
struct SharedFollowers(Rc<RefCell<Followers>>);

impl Ranks for SharedFollowers {
    fn pass(&self, pass: Pass) -> Computed<()> {
        self.0.borrow().pass(pass)
    }

    fn sequence(&self) -> Box<dyn Remote> {
        Box::new(RemoteCache::new(&self.0))
    }
}

/// Handle of a sequence's cache on the other ranks: copying or dropping it copies or drops their
/// caches.
pub struct RemoteCache {
    sequence: u64,
    /// True if the ranks know blocks of the sequence.
    blocked: Cell<bool>,
    others: Rc<RefCell<Followers>>,
}

impl RemoteCache {
    /// Cache of a new sequence.
    pub fn new(others: &Rc<RefCell<Followers>>) -> RemoteCache {
        let sequence = others.borrow_mut().next();
        RemoteCache { sequence, blocked: Cell::new(false), others: others.clone() }
    }
}

impl Remote for RemoteCache {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn forgets(&self) -> bool {
        self.others.borrow().forgets
    }

    fn has_blocks(&self) -> bool {
        self.others.borrow().blocks
    }

    fn set_blocks(&self, blocks: &[Range<i32>]) {
        if self.has_blocks() && (self.blocked.get() || !blocks.is_empty()) {
            self.blocked.set(!blocks.is_empty());
            let (sequence, blocks) = (self.sequence, blocks.to_vec());
            self.others.borrow().tell(&RankCommand::Blocks { sequence, blocks });
        }
    }

    fn copy(&self) -> Box<dyn Remote> {
        let copy = RemoteCache::new(&self.others);
        copy.blocked.set(self.blocked.get());
        self.others.borrow().tell(&RankCommand::Copy { from: self.sequence, to: copy.sequence });
        Box::new(copy)
    }

    fn forget(&self, tokens: usize) -> bool {
        if tokens == 0 {
            return true;
        }
        let others = self.others.borrow();
        others.tell(&RankCommand::Forget { sequence: self.sequence, tokens });
        let replies = others.replies.iter().map(Receiver::recv);
        // Every reply is read: an unread one would be taken for the reply to the next command.
        replies.fold(true, |all, reply| all & matches!(reply, Ok(RankReply::Forgot(true))))
    }
}

impl Drop for RemoteCache {
    fn drop(&mut self) {
        self.others.borrow().tell(&RankCommand::Drop { sequence: self.sequence });
    }
}
