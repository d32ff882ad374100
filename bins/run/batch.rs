//! Requests on standard input, answered concurrently.
//!
//! Another thread reads the requests, so that waiting for the next one does not delay the running
//! ones.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;

use mlxk_cli::requests::{at, requests};
use mlxk_cli::{Output, interrupt};
use mlxk_core::{Record, Result};
use mlxk_engine::{Model, Runner};
use mlxk_processor::event::FinishReason;
use mlxk_processor::{Event, Request};

use super::options::RunOptions;
use super::record::Answer;

/// Maximum number of results that wait for an earlier one; at the limit, no request is started.
const MAX_READY: usize = 1024;

/// Answers all requests of standard input with the model `name`.
///
/// # Errors
/// If `out` cannot be written; a request that fails is reported there.
pub fn answer(
    runner: &mut Runner<Model>,
    name: &str,
    options: &RunOptions,
    out: &mut Output,
) -> Result<()> {
    let (send, queue) = sync_channel(options.model.batch);
    thread::spawn(move || requests().try_for_each(|request| send.send(request)));
    let (running, ready) = (BTreeMap::new(), BTreeMap::new());
    let mut batch = Batch { runner, name, options, running, ready, begun: 0, written: 0 };
    let mut watch = None;
    while batch.fill(&queue, out)? {
        batch.step(out)?;
        if batch.running.values().any(|running| running.started) {
            let caught = watch.get_or_insert_with(interrupt::watch).caught();
            if caught {
                return batch.interrupt(out);
            }
        }
        if batch.running.is_empty() {
            watch = None;
        }
    }
    Ok(())
}

type Queue = Receiver<Result<(Record, usize)>>;

struct Batch<'a> {
    runner: &'a mut Runner<Model>,
    name: &'a str,
    options: &'a RunOptions,
    /// Running requests, by the runner's numbers.
    running: BTreeMap<u64, Running>,
    /// Results that wait for an earlier one, by position.
    ready: BTreeMap<usize, Result<Record>>,
    /// Number of requests started.
    begun: usize,
    /// Number of results written in order.
    written: usize,
}

/// A running request.
struct Running {
    record: Record,
    /// Line of the request in standard input.
    line: usize,
    /// Position of the request among all.
    place: usize,
    answer: Answer,
    /// True if the request has had an event.
    started: bool,
}

impl Batch<'_> {
    /// Starts requests of the queue up to the limits; waits for one if none is running. False if
    /// all requests are done.
    fn fill(&mut self, queue: &Queue, out: &mut Output) -> Result<bool> {
        while self.running.len() < self.options.model.batch && self.ready.len() < MAX_READY {
            let next = match self.running.is_empty() {
                true => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => queue.try_recv().map_err(|e| match e {
                    TryRecvError::Empty => RecvTimeoutError::Timeout,
                    TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
            };
            match next {
                Ok(request) => self.begin(request, out)?,
                Err(RecvTimeoutError::Timeout) => return Ok(true),
                Err(RecvTimeoutError::Disconnected) => return Ok(!self.running.is_empty()),
            }
        }
        Ok(true)
    }

    fn begin(&mut self, request: Result<(Record, usize)>, out: &mut Output) -> Result<()> {
        let place = self.begun;
        self.begun += 1;
        let joined = request.and_then(|(record, line)| {
            let number =
                Request::parse(&record, &self.options.preset).and_then(|r| self.runner.join(&r));
            Ok((number.map_err(|e| at(line, e))?, record, line))
        });
        match joined {
            Ok((number, record, line)) => {
                let answer = Answer::default();
                let running = Running { record, line, place, answer, started: false };
                self.running.insert(number, running);
                Ok(())
            }
            Err(e) => self.end(place, Err(e), out),
        }
    }

    fn step(&mut self, out: &mut Output) -> Result<()> {
        for (number, event) in self.runner.step() {
            self.take(number, event, out)?;
        }
        Ok(())
    }

    fn take(&mut self, number: u64, event: Result<Event>, out: &mut Output) -> Result<()> {
        let Some(running) = self.running.get_mut(&number) else { return Ok(()) };
        running.started = true;
        let end = match event {
            Ok(Event::End(end)) => Ok(end),
            Ok(event) => {
                running.answer.add(event);
                return Ok(());
            }
            Err(e) => Err(e),
        };
        let Some(running) = self.running.remove(&number) else { return Ok(()) };
        let Running { record, line, place, answer, .. } = running;
        let result = end
            .map_err(|e| at(line, e))
            .map(|end| record.with("model", self.name).merge(answer.record()).merge(end.record()));
        self.end(place, result, out)
    }

    /// Ends all running answers.
    fn interrupt(&mut self, out: &mut Output) -> Result<()> {
        let numbers: Vec<u64> = self.running.keys().copied().collect();
        for number in numbers {
            for event in self.runner.end(number, FinishReason::Interrupted) {
                self.take(number, Ok(event), out)?;
            }
        }
        Ok(())
    }

    /// Writes the result of the request at `place`, or keeps it until the earlier ones are written.
    fn end(&mut self, place: usize, result: Result<Record>, out: &mut Output) -> Result<()> {
        if !self.options.model.ordered {
            return write(result, out);
        }
        self.ready.insert(place, result);
        while let Some(result) = self.ready.remove(&self.written) {
            self.written += 1;
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
