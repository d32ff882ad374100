//! Many requests, answered side by side.
//!
//! Another thread reads the requests: waiting for the next one must not hold up those that are being
//! answered.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;

use mlxk_cli::requests::{at, requests};
use mlxk_cli::{Output, interrupt};
use mlxk_core::{Record, Result};
use mlxk_infer::{Model, Runner};
use mlxk_processor::event::Reason;
use mlxk_processor::{Event, Request};

use crate::{Answer, Manner};

/// Answers that wait for an earlier one; with more of them no further request is begun.
const WAITING: usize = 1024;

/// Answers all requests of standard input with the model `name`.
pub fn answer(
    runner: &mut Runner<Model>,
    name: &str,
    manner: &Manner,
    out: &mut Output,
) -> Result<()> {
    let (send, coming) = sync_channel(manner.work.batch);
    thread::spawn(move || requests().try_for_each(|request| send.send(request)));
    let asked = BTreeMap::new();
    let mut many = Many { runner, name, manner, asked, ready: BTreeMap::new(), taken: 0, told: 0 };
    let mut watch = None;
    while many.take_in(&coming, out)? {
        many.step(out)?;
        if many.asked.values().any(|asked| asked.begun) {
            let caught = watch.get_or_insert_with(interrupt::watch).caught();
            if caught {
                return many.interrupt(out);
            }
        }
        if many.asked.is_empty() {
            watch = None;
        }
    }
    Ok(())
}

type Coming = Receiver<Result<(Record, usize)>>;

struct Many<'a> {
    runner: &'a mut Runner<Model>,
    name: &'a str,
    manner: &'a Manner,
    /// The requests that are being answered, by the numbers of their answers.
    asked: BTreeMap<u64, Asked>,
    /// Results that wait for an earlier one, by their places.
    ready: BTreeMap<usize, Result<Record>>,
    /// Requests taken in.
    taken: usize,
    /// Results written, if they are to be in order.
    told: usize,
}

/// A request that is being answered.
struct Asked {
    record: Record,
    /// Its line of standard input.
    line: usize,
    /// Its place among the requests.
    place: usize,
    answer: Answer,
    /// Whether something has come.
    begun: bool,
}

impl Many<'_> {
    /// Takes in the requests that are there and fit; waits for one if there is nothing else to do.
    /// False if there is nothing left to do.
    fn take_in(&mut self, coming: &Coming, out: &mut Output) -> Result<bool> {
        while self.asked.len() < self.manner.work.batch && self.ready.len() < WAITING {
            let next = match self.asked.is_empty() {
                true => coming.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => coming.try_recv().map_err(|e| match e {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
            };
            match next {
                Ok(request) => self.begin(request, out)?,
                Err(RecvTimeoutError::Timeout) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => return Ok(!self.asked.is_empty()),
            }
        }
        Ok(true)
    }

    fn begin(&mut self, request: Result<(Record, usize)>, out: &mut Output) -> Result<()> {
        let place = self.taken;
        self.taken += 1;
        let begun = request.and_then(|(record, line)| {
            let number =
                Request::parse(&record, &self.manner.preset).and_then(|r| self.runner.join(&r));
            Ok((number.map_err(|e| at(line, e))?, record, line))
        });
        match begun {
            Ok((number, record, line)) => {
                let answer = Answer::default();
                let asked = Asked { record, line, place, answer, begun: false };
                self.asked.insert(number, asked);
                Ok(())
            }
            Err(e) => self.tell(place, Err(e), out),
        }
    }

    fn step(&mut self, out: &mut Output) -> Result<()> {
        for (number, event) in self.runner.step() {
            self.hear(number, event, out)?;
        }
        Ok(())
    }

    fn hear(&mut self, number: u64, event: Result<Event>, out: &mut Output) -> Result<()> {
        let Some(asked) = self.asked.get_mut(&number) else { return Ok(()) };
        asked.begun = true;
        let result = match event {
            Ok(Event::End(end)) => Ok(end),
            Ok(event) => {
                asked.answer.hear(event);
                return Ok(());
            }
            Err(e) => Err(e),
        };
        let Some(asked) = self.asked.remove(&number) else { return Ok(()) };
        let Asked { record, line, place, answer, .. } = asked;
        let told = result
            .map_err(|e| at(line, e))
            .map(|end| record.with("model", self.name).merge(answer.record()).merge(end.record()));
        self.tell(place, told, out)
    }

    /// Ends all answers where they are.
    fn interrupt(&mut self, out: &mut Output) -> Result<()> {
        let numbers: Vec<u64> = self.asked.keys().copied().collect();
        for number in numbers {
            for event in self.runner.end(number, Reason::Interrupted) {
                self.hear(number, Ok(event), out)?;
            }
        }
        Ok(())
    }

    /// Writes the result of the request at `place`, if it is its turn.
    fn tell(&mut self, place: usize, result: Result<Record>, out: &mut Output) -> Result<()> {
        if !self.manner.work.ordered {
            return write(result, out);
        }
        self.ready.insert(place, result);
        while let Some(result) = self.ready.remove(&self.told) {
            self.told += 1;
            write(result, out)?;
        }
        Ok(())
    }
}

fn write(result: Result<Record>, out: &mut Output) -> Result<()> {
    match result {
        Ok(record) => out.lines([&record]),
        Err(e) => out.error(&e),
    }
}
