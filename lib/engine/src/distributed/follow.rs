//! Follower in a group of ranks: executes the commands of rank 0.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use mlxk_core::digest::Hasher;
use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_models::checkpoint::part::Part;
use mlxk_models::sketch;
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::collective;
use mlxk_tensor::positions::RowPositions;

use super::rank_config::{RankConfig, gone};
use super::wire::{Hello, MessageReader, RankCommand, RankReply, send_message};
use crate::forward::{Pass, ids, shared};
use crate::load;
use crate::model::Model;
use crate::thread::WorkerThread;

/// Time limit for connecting to rank 0.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Delay before a follower reports a failure. If another rank has ended, MLX may fail here before
/// rank 0 detects the lost connection.
const HEADSTART: Duration = Duration::from_millis(500);

/// Executes the commands of rank 0 until it ends. `memory` is the limit for the part of this rank,
/// in bytes; `ready` receives the part once it is loaded.
///
/// # Errors
/// If rank 0 cannot be reached, has ended or refuses this rank, or if the part cannot be loaded.
pub fn follow(
    config: &RankConfig,
    facts: Facts,
    plan: Plan,
    memory: u64,
    ready: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    let hello = hello(config, &facts, memory)?;
    let stream = connected(config)?;
    let lost = |_| gone(0);
    let mut reader = MessageReader::new(stream.try_clone().map_err(lost)?);
    send_message(&stream, &RankReply::Hello(hello)).map_err(lost)?;
    let part = match reader.read().map_err(lost)? {
        Some(RankCommand::Start(part)) => part,
        Some(RankCommand::Refused(why)) => return Err(Error::new(Kind::Command, "rank 0", why)),
        _ => return Err(gone(0)),
    };
    let (commands, coming) = channel();
    let (send, news) = channel();
    let member = Follower { config: config.clone(), facts, plan, part, stream };
    // The model runs on its own thread: this thread must detect the end of rank 0 even while MLX
    // waits for it.
    let model = thread::Builder::new()
        .name("model".to_owned())
        .spawn(move || member.work(&coming, &send))
        .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
    match news.recv() {
        Ok(Status::Ready) => ready(part)?,
        Ok(Status::Failed(e)) => return Err(e),
        Err(_) => return Err(gone(0)),
    }
    let ended = loop {
        match reader.read() {
            Ok(Some(RankCommand::End)) => break Ok(()),
            // If the thread of the model has ended, so does the connection, which is read next.
            Ok(Some(command)) => drop(commands.send(command)),
            Ok(None) | Err(_) => match news.try_recv() {
                Ok(Status::Failed(e)) => break Err(e),
                _ => break Err(gone(0)),
            },
        }
    };
    drop(commands);
    drop(WorkerThread::new(model));
    ended
}

/// Introduction of this rank, with a memory limit of `memory` bytes.
///
/// # Errors
/// If config.json cannot be read.
pub fn hello(config: &RankConfig, facts: &Facts, memory: u64) -> Result<Hello> {
    let mut digest = Hasher::sha256();
    digest.update(sketch::config(facts)?.to_string().as_bytes());
    for shard in facts.weights() {
        for tensor in shard.header.iter().flat_map(|header| &header.tensors) {
            digest.update(format!("{} {:?}\n", tensor.name, tensor.shape).as_bytes());
        }
    }
    Ok(Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rank: config.rank,
        model: digest.finish().to_string(),
        memory,
        on_cpu: config.on_cpu,
    })
}

/// Connection to rank 0, which may not listen yet.
fn connected(config: &RankConfig) -> Result<TcpStream> {
    let late = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match TcpStream::connect(config.first) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|_| gone(0))?;
                return Ok(stream);
            }
            Err(e) if Instant::now() > late => {
                let why = format!("rank 0 cannot be reached: {e}");
                return Err(Error::new(Kind::Execution, config.first.to_string(), why));
            }
            Err(_) => thread::sleep(RETRY_INTERVAL),
        }
    }
}

/// Status of the thread of the model.
enum Status {
    Ready,
    Failed(Error),
}

/// State of the model thread on a rank other than 0.
struct Follower {
    config: RankConfig,
    facts: Facts,
    plan: Plan,
    part: Part,
    stream: TcpStream,
}

impl Follower {
    fn work(&self, commands: &Receiver<RankCommand>, news: &Sender<Status>) {
        let Err(e) = self.serve(commands, news) else { return };
        // If a rank has ended, this failure is a consequence, and rank 0 reports the cause.
        thread::sleep(HEADSTART);
        // Rank 0 may have ended already.
        let _ = send_message(&self.stream, &RankReply::Failed(e.message.clone()));
        let _ = news.send(Status::Failed(e));
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn serve(&self, commands: &Receiver<RankCommand>, news: &Sender<Status>) -> Result<()> {
        let Follower { config, facts, plan, part, stream } = self;
        collective::join(config.backend, config.rank, config.size)?;
        let model = load::load_part(facts, plan, config.on_cpu, Some(*part))?;
        let lost = |_| gone(0);
        let cache = model.forward.cache();
        let (forgets, blocks) = (cache.forgets(), cache.has_blocks());
        send_message(stream, &RankReply::Ready { forgets, blocks }).map_err(lost)?;
        news.send(Status::Ready).map_err(|_| gone(0))?;
        let mut sequences = BTreeMap::new();
        for command in commands {
            if let Some(forgot) = execute(command, &model, &mut sequences)? {
                send_message(stream, &RankReply::Forgot(forgot)).map_err(lost)?;
            }
        }
        Ok(())
    }
}

/// Executes a command. For `Forget`, returns true if the sequence dropped its tokens; `None` for
/// other commands.
fn execute(
    command: RankCommand,
    model: &Model,
    sequences: &mut BTreeMap<u64, Cache>,
) -> Result<Option<bool>> {
    match command {
        RankCommand::Pass(Pass { sequences: advancing, ids: tokens, positions, pictures }) => {
            let own = |&(sequence, rows): &(u64, usize)| {
                let cache = sequences.remove(&sequence).unwrap_or_else(|| model.forward.cache());
                (sequence, cache, rows as i32)
            };
            let mut own: Vec<(u64, Cache, i32)> = advancing.iter().map(own).collect();
            let rows = own.iter_mut().map(|(_, cache, rows)| (cache, *rows)).collect();
            let positions = positions
                .iter()
                .map(|(rows, delta)| RowPositions { rows: rows.as_deref(), delta: *delta });
            let rows = Sequences::new(rows).positioned(positions.collect());
            model.forward.run(|| {
                let spliced = shared(&pictures, None)?;
                model.forward.forward(&ids(&tokens), &spliced, rows)
            })?;
            sequences.extend(own.into_iter().map(|(sequence, cache, _)| (sequence, cache)));
        }
        RankCommand::Blocks { sequence, blocks } => {
            let cache = sequences.entry(sequence).or_insert_with(|| model.forward.cache());
            cache.set_blocks(&blocks.into());
        }
        RankCommand::Copy { from, to } => {
            let copy = sequences.get(&from).cloned();
            sequences.extend(copy.map(|copy| (to, copy)));
        }
        RankCommand::Forget { sequence, tokens } => {
            return Ok(Some(sequences.get_mut(&sequence).is_none_or(|cache| cache.forget(tokens))));
        }
        RankCommand::Drop { sequence } => drop(sequences.remove(&sequence)),
        RankCommand::Start(_) | RankCommand::Refused(_) | RankCommand::End => {}
    }
    Ok(None)
}
