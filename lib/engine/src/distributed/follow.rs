//! A rank that does what rank 0 tells it.

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

use super::place::{Place, gone};
use super::wire::{Answer, Ear, Hello, Order, say};
use crate::forward::ids;
use crate::load;
use crate::model::Model;
use crate::thread::Working;

/// How long to try to reach rank 0, and the time between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_millis(200);

/// How much sooner MLX may notice that a rank has gone than the line to rank 0 tells it.
const HEADSTART: Duration = Duration::from_millis(500);

/// Takes part in what rank 0 does until that ends it; `ready` is told the part when it is loaded.
///
/// # Errors
/// If rank 0 cannot be reached, or has gone; if they do not fit together; if the part cannot be
/// loaded.
pub fn follow(
    place: &Place,
    facts: Facts,
    plan: Plan,
    memory: u64,
    ready: &mut dyn FnMut(Part) -> Result<()>,
) -> Result<()> {
    let hello = hello(place, &facts, memory)?;
    let stream = connected(place)?;
    let lost = |_| gone(0);
    let mut ear = Ear::new(stream.try_clone().map_err(lost)?);
    say(&stream, &Answer::Hello(hello)).map_err(lost)?;
    let part = match ear.hear().map_err(lost)? {
        Some(Order::Start(part)) => part,
        Some(Order::Refused(why)) => return Err(Error::new(Kind::Command, "rank 0", why)),
        _ => return Err(gone(0)),
    };
    let (orders, coming) = channel();
    let (send, news) = channel();
    let member = Member { place: place.clone(), facts, plan, part, stream };
    // The model has a thread of its own: this one must hear that rank 0 has gone, even while MLX
    // waits for it.
    let model = thread::Builder::new()
        .name("model".to_owned())
        .spawn(move || member.work(&coming, &send))
        .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
    match news.recv() {
        Ok(News::Ready) => ready(part)?,
        Ok(News::Failed(e)) => return Err(e),
        Err(_) => return Err(gone(0)),
    }
    let ended = loop {
        match ear.hear() {
            Ok(Some(Order::End)) => break Ok(()),
            // Without the model's thread, the next that is heard is the end.
            Ok(Some(order)) => drop(orders.send(order)),
            Ok(None) | Err(_) => match news.try_recv() {
                Ok(News::Failed(e)) => break Err(e),
                _ => break Err(gone(0)),
            },
        }
    };
    drop(orders);
    drop(Working::new(model));
    ended
}

/// Who this rank is.
pub fn hello(place: &Place, facts: &Facts, memory: u64) -> Result<Hello> {
    let mut digest = Hasher::sha256();
    digest.update(sketch::config(facts)?.to_string().as_bytes());
    for shard in facts.weights() {
        for tensor in shard.header.iter().flat_map(|header| &header.tensors) {
            digest.update(format!("{} {:?}\n", tensor.name, tensor.shape).as_bytes());
        }
    }
    Ok(Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        rank: place.rank,
        model: digest.finish().to_string(),
        memory,
        on_cpu: place.on_cpu,
    })
}

/// The line to rank 0, which may not be there yet.
fn connected(place: &Place) -> Result<TcpStream> {
    let late = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(place.first) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|_| gone(0))?;
                return Ok(stream);
            }
            Err(e) if Instant::now() > late => {
                let why = format!("rank 0 cannot be reached: {e}");
                return Err(Error::new(Kind::Execution, place.first.to_string(), why));
            }
            Err(_) => thread::sleep(REST),
        }
    }
}

/// What the thread of the model tells.
enum News {
    Ready,
    Failed(Error),
}

/// What the thread of the model begins with.
struct Member {
    place: Place,
    facts: Facts,
    plan: Plan,
    part: Part,
    stream: TcpStream,
}

impl Member {
    fn work(&self, orders: &Receiver<Order>, news: &Sender<News>) {
        let Err(e) = self.serve(orders, news) else { return };
        // If a rank has gone, that is the reason, and this failure only follows from it.
        thread::sleep(HEADSTART);
        // Whom nobody hears has nobody to tell.
        let _ = say(&self.stream, &Answer::Failed(e.message.clone()));
        let _ = news.send(News::Failed(e));
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn serve(&self, orders: &Receiver<Order>, news: &Sender<News>) -> Result<()> {
        let Member { place, facts, plan, part, stream } = self;
        collective::join(place.backend, place.rank, place.size)?;
        let model = load::load_part(facts, plan, place.on_cpu, Some(*part))?;
        let lost = |_| gone(0);
        let forgets = model.forward.cache().forgets();
        say(stream, &Answer::Ready { forgets }).map_err(lost)?;
        news.send(News::Ready).map_err(|_| gone(0))?;
        let mut texts = BTreeMap::new();
        for order in orders {
            if let Some(forgot) = obey(order, &model, &mut texts)? {
                say(stream, &Answer::Forgot(forgot)).map_err(lost)?;
            }
        }
        Ok(())
    }
}

/// Does what is told; whether a text forgot tokens if that is asked.
fn obey(order: Order, model: &Model, texts: &mut BTreeMap<u64, Cache>) -> Result<Option<bool>> {
    match order {
        Order::Pass { texts: advancing, ids: tokens } => {
            let own = |&(text, rows): &(u64, usize)| {
                let cache = texts.remove(&text).unwrap_or_else(|| model.forward.cache());
                (text, cache, rows as i32)
            };
            let mut own: Vec<(u64, Cache, i32)> = advancing.iter().map(own).collect();
            let rows = own.iter_mut().map(|(_, cache, rows)| (cache, *rows)).collect();
            model
                .forward
                .run(|| model.forward.forward(&ids(&tokens), &[], Sequences::new(rows)))?;
            texts.extend(own.into_iter().map(|(text, cache, _)| (text, cache)));
        }
        Order::Copy { from, to } => {
            let copy = texts.get(&from).cloned();
            texts.extend(copy.map(|copy| (to, copy)));
        }
        Order::Forget { text, tokens } => {
            return Ok(Some(texts.get_mut(&text).is_none_or(|cache| cache.forget(tokens))));
        }
        Order::Drop { text } => drop(texts.remove(&text)),
        Order::Start(_) | Order::Refused(_) | Order::End => {}
    }
    Ok(None)
}
