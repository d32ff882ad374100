//! Rank 0, and the other ranks as it sees them.

use std::cell::RefCell;
use std::net::{TcpListener, TcpStream};
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
use super::place::{Place, gone};
use super::wire::{Answer, Ear, Hello, Order, say};
use crate::forward::Ranks;
use crate::load;
use crate::model::Model;

/// Time to wait for the first message of a rank; other programs that connect say something else.
const PATIENCE: Duration = Duration::from_secs(10);

/// Other ranks before a model is loaded.
pub struct Party {
    place: Place,
    part: Part,
    bytes: u64,
    watch: Watch,
    answers: Vec<Receiver<Answer>>,
}

/// Connections to the other ranks: tell whether one is lost, and end all ranks.
#[derive(Clone, Debug)]
pub struct Watch {
    lines: Arc<Mutex<Vec<TcpStream>>>,
    lost: Arc<OnceLock<Error>>,
}

impl Watch {
    /// Error that ended the work of all ranks, if one did.
    pub fn lost(&self) -> Option<Error> {
        self.lost.get().cloned()
    }

    /// Tells all ranks to end.
    pub fn end(&self) {
        // Who has gone needs no end.
        let _ = self.tell(&Order::End);
    }

    fn tell(&self, order: &Order) -> std::io::Result<()> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| say(line, order))
    }

    fn lose(&self, error: Error) {
        // The first reason is the reason.
        let _ = self.lost.set(error);
    }
}

impl Party {
    /// Waits for the other ranks and tells them their parts; `said` gets a line for each that is there.
    ///
    /// # Errors
    /// If they do not have the same model and the same program, or it cannot be taken apart.
    pub fn gather(
        place: &Place,
        (facts, plan): (&Facts, &Plan),
        memory: u64,
        wish: Option<Split>,
        said: &dyn Fn(String),
    ) -> Result<Party> {
        let own = follow::hello(place, facts, memory)?;
        let failed = |e| cannot(place, &e);
        let listener = TcpListener::bind(place.first).map_err(failed)?;
        said(format!("{} ranks are to come to {}", place.size - 1, place.first));
        let mut others: Vec<Option<(Hello, TcpStream, Ear)>> = Vec::new();
        others.resize_with(place.size - 1, || None);
        while others.iter().any(Option::is_none) {
            let (stream, from) = listener.accept().map_err(failed)?;
            let Some((hello, ear)) = introduced(&stream) else { continue };
            if let Err(why) = alike(&own, &hello, &others) {
                // It may have gone already.
                let _ = say(&stream, &Order::Refused(why.clone()));
                return Err(Error::new(Kind::Command, format!("rank {}", hello.rank), why));
            }
            said(format!("rank {} is there, from {from}", hello.rank));
            let seat = hello.rank - 1;
            others[seat] = Some((hello, stream, ear));
        }
        // Next, the group of MLX is met at this address.
        drop(listener);
        let others: Vec<(Hello, TcpStream, Ear)> = others.into_iter().flatten().collect();
        let free: Vec<u64> =
            [memory].into_iter().chain(others.iter().map(|(hello, ..)| hello.memory)).collect();
        let parts = choose(facts, plan, &free, wish).map_err(|mut e| {
            for (_, stream, _) in &others {
                // As above.
                let _ = say(stream, &Order::Refused(e.message.clone()));
            }
            e.subject = facts.found.name.clone();
            e
        })?;
        Party::start(place, &parts, others)
    }

    /// Tells the others what to load, and listens to them from now on.
    fn start(
        place: &Place,
        parts: &[(Part, u64)],
        others: Vec<(Hello, TcpStream, Ear)>,
    ) -> Result<Party> {
        let (lines, lost) = (Arc::default(), Arc::default());
        let watch = Watch { lines, lost };
        let mut answers = Vec::new();
        let mut streams = Vec::new();
        for (hello, stream, ear) in others {
            let rank = hello.rank;
            say(&stream, &Order::Start(parts[rank].0)).map_err(|_| gone(rank))?;
            streams.push(stream);
            let (told, answer) = channel();
            answers.push(answer);
            let watch = watch.clone();
            thread::Builder::new()
                .name(format!("rank {rank}"))
                .spawn(move || listen(rank, ear, &told, &watch))
                .map_err(|e| Error::new(Kind::Execution, "", format!("no thread: {e}")))?;
        }
        *watch.lines.lock().unwrap_or_else(PoisonError::into_inner) = streams;
        let (part, bytes) = parts[0];
        Ok(Party { place: place.clone(), part, bytes, watch, answers })
    }

    /// Part of the model that rank 0 takes.
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
    /// If one of them cannot.
    pub fn load(self, facts: &Facts, plan: &Plan) -> Result<Model> {
        let Party { place, part, watch, answers, .. } = self;
        collective::join(place.backend, place.rank, place.size)?;
        let mut model = load::load_part(facts, plan, place.on_cpu, Some(part))?;
        let lost = || watch.lost().unwrap_or_else(|| gone(1));
        let mut forgets = true;
        for answer in &answers {
            match answer.recv() {
                Ok(Answer::Ready { forgets: own }) => forgets &= own,
                _ => return Err(lost()),
            }
        }
        let others = Others { watch, answers, texts: 0, forgets };
        model.forward.ranks = Some(Rc::new(Lead(Rc::new(RefCell::new(others)))));
        Ok(model)
    }
}

/// Passes on the answers of a rank, until it has gone.
fn listen(rank: usize, mut ear: Ear, told: &Sender<Answer>, watch: &Watch) {
    loop {
        match ear.hear() {
            Ok(Some(Answer::Failed(why))) => {
                return watch.lose(Error::new(Kind::Execution, format!("rank {rank}"), why));
            }
            Ok(Some(answer)) => {
                if told.send(answer).is_err() {
                    return;
                }
            }
            Ok(None) | Err(_) => return watch.lose(gone(rank)),
        }
    }
}

/// Introduction of a rank that connected; `None` of any other program.
fn introduced(stream: &TcpStream) -> Option<(Hello, Ear)> {
    // What is no rank is left alone: it is no business of this program.
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut ear = Ear::new(stream.try_clone().ok()?);
    let Ok(Some(Answer::Hello(hello))) = ear.hear() else { return None };
    stream.set_read_timeout(None).ok()?;
    Some((hello, ear))
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

fn cannot(place: &Place, error: &std::io::Error) -> Error {
    Error::new(Kind::Command, place.first.to_string(), error.to_string())
        .hint("the first address of the hostfile is one of the machine of rank 0")
}

/// Other ranks of a model that is loaded.
pub struct Others {
    watch: Watch,
    answers: Vec<Receiver<Answer>>,
    /// Sequences that there ever were.
    texts: u64,
    forgets: bool,
}

impl Others {
    /// Tells the ranks that sequences advance by `ids`.
    pub fn pass(&self, texts: Vec<(u64, usize)>, ids: Vec<u32>) -> Computed<()> {
        let failed = |e| Exception::custom(format!("a rank has gone: {e}"));
        self.watch.tell(&Order::Pass { texts, ids }).map_err(failed)
    }

    fn tell(&self, order: &Order) {
        // Who has gone is noticed at the next pass.
        let _ = self.watch.tell(order);
    }

    fn next(&mut self) -> u64 {
        self.texts += 1;
        self.texts
    }
}

/// Other ranks as the leading one sees them.
struct Lead(Rc<RefCell<Others>>);

impl Ranks for Lead {
    fn pass(&self, sequences: Vec<(u64, usize)>, ids: Vec<u32>) -> Computed<()> {
        self.0.borrow().pass(sequences, ids)
    }

    fn sequence(&self) -> Box<dyn Remote> {
        Box::new(Elsewhere::new(&self.0))
    }
}

/// Cache of a sequence on the other ranks. They copy theirs when it is copied, and drop theirs when it
/// is dropped.
pub struct Elsewhere {
    text: u64,
    others: Rc<RefCell<Others>>,
}

impl Elsewhere {
    /// Cache of a new sequence.
    pub fn new(others: &Rc<RefCell<Others>>) -> Elsewhere {
        Elsewhere { text: others.borrow_mut().next(), others: others.clone() }
    }
}

impl Remote for Elsewhere {
    fn sequence(&self) -> u64 {
        self.text
    }

    fn forgets(&self) -> bool {
        self.others.borrow().forgets
    }

    fn copy(&self) -> Box<dyn Remote> {
        let copy = Elsewhere::new(&self.others);
        self.others.borrow().tell(&Order::Copy { from: self.text, to: copy.text });
        Box::new(copy)
    }

    fn forget(&self, tokens: usize) -> bool {
        if tokens == 0 {
            return true;
        }
        let others = self.others.borrow();
        others.tell(&Order::Forget { text: self.text, tokens });
        let answers = others.answers.iter().map(Receiver::recv);
        // All are heard, or the next answers would be these.
        answers.fold(true, |all, answer| all & matches!(answer, Ok(Answer::Forgot(true))))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.others.borrow().tell(&Order::Drop { text: self.text });
    }
}
