//! Reporter of long work: a bar on standard error if that is a terminal, and optional records on
//! standard output.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mlxk_core::{Progress, Record, Result, printable};
use serde_json::{Value, json};

use crate::output::Output;

/// Time between two records of the number of bytes done.
const PERIOD: Duration = Duration::from_secs(1);

/// Reporter of the progress of one piece of work, from any number of threads. Its bar vanishes when
/// it is dropped.
#[derive(Debug)]
pub struct Reporter<'a> {
    model: &'a str,
    bar: ProgressBar,
    state: Mutex<State<'a>>,
}

#[derive(Debug)]
struct State<'a> {
    out: Option<&'a mut Output>,
    /// True if records are written to `out`.
    records: bool,
    /// Time of the last record of the number of bytes done.
    told: Instant,
    /// Bytes announced by [`Progress::Due`].
    due: u64,
    /// Bytes done.
    done: u64,
    /// Failure to write a record, after which no further ones are written.
    wrote: Result<()>,
}

/// Counter of things done, of which it is not known how many there will be; shown on standard error
/// if that is a terminal. It vanishes when it is dropped.
#[derive(Debug)]
pub struct Counter {
    bar: ProgressBar,
}

impl Counter {
    /// Counter of `things`; never shown unless `shown`.
    pub fn new(things: &'static str, shown: bool) -> Counter {
        let style = ProgressStyle::with_template("{human_pos} {msg}, {per_sec}, {elapsed}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = if shown { ProgressBar::no_length() } else { ProgressBar::hidden() };
        Counter { bar: bar.with_style(style).with_message(things) }
    }

    /// Counts `more` things.
    pub fn add(&self, more: usize) {
        self.bar.inc(more as u64);
    }

    /// Calls `write` while the counter is out of the way of what that writes to the terminal.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Reporter<'static> {
    /// Reporter that shows a bar and writes nothing.
    pub fn bar() -> Reporter<'static> {
        Reporter::with("", false, None)
    }
}

impl<'a> Reporter<'a> {
    /// Reporter of work on `model`, which writes to `out`: remarks, and records if they are wanted.
    pub fn new(model: &'a str, records: bool, out: &'a mut Output) -> Reporter<'a> {
        Reporter::with(model, records, Some(out))
    }

    fn with(model: &'a str, records: bool, out: Option<&'a mut Output>) -> Reporter<'a> {
        let style = ProgressStyle::with_template(concat!(
            "{prefix}{wide_bar} {decimal_bytes}/{decimal_total_bytes} ",
            "{decimal_bytes_per_sec}, {eta} {msg}"
        ));
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(0).with_style(style); // hidden where there is no terminal
        let told = Instant::now();
        let state = State { out, records, told, due: 0, done: 0, wrote: Ok(()) };
        Reporter { model, bar, state: Mutex::new(state) }
    }

    /// Shows the name of the model before the bar.
    pub fn titled(self) -> Reporter<'a> {
        self.bar.set_prefix(format!("{} ", printable(self.model)));
        self
    }

    /// Shows `progress`, and writes its record. A record that cannot be written is kept for
    /// [`Reporter::check`].
    pub fn report(&self, progress: Progress) {
        self.show(progress);
        let mut state = self.state();
        if let Progress::Locked { path } = progress {
            let subject = match path {
                "" => self.model.to_owned(),
                path => format!("{}: {path}", self.model),
            };
            let message = format!("{subject}: another program is fetching it");
            if let Some(out) = &mut state.out {
                let hint = "it ends by itself when that one does";
                self.bar.suspend(|| out.remark(&message, hint));
            }
        }
        state.count(progress);
        state.record(self.model, progress);
    }

    /// Returns the failure to write a record, once.
    ///
    /// # Errors
    /// If a record could not be written since the last call.
    pub fn check(&self) -> Result<()> {
        mem::replace(&mut self.state().wrote, Ok(()))
    }

    /// Removes the bar.
    ///
    /// # Errors
    /// If a record could not be written.
    pub fn finish(self) -> Result<()> {
        self.check()
    }

    /// Calls `write` while the bar is out of the way of what that writes to the terminal.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    fn show(&self, progress: Progress) {
        let bar = &self.bar;
        match progress {
            Progress::Due(bytes) => bar.inc_length(bytes),
            Progress::Read(bytes) | Progress::Checked { bytes } | Progress::Moved { bytes, .. } => {
                bar.inc(bytes)
            }
            Progress::Plan { bytes, present, .. } => {
                bar.set_length(bytes);
                bar.set_position(present);
                bar.set_message("");
                bar.reset_eta();
            }
            Progress::Check { bytes } => {
                bar.set_length(bytes);
                bar.set_position(0);
                bar.set_message("comparing");
            }
            Progress::Lost { bytes, .. } => {
                bar.set_position(bar.position().saturating_sub(bytes));
            }
            Progress::Retry { reason, .. } => bar.set_message(reason.to_owned()),
            Progress::Done { .. } => bar.set_message(""),
            Progress::Begin { .. } | Progress::Locked { .. } => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl State<'_> {
    /// Adds up the bytes.
    fn count(&mut self, progress: Progress) {
        match progress {
            Progress::Due(bytes) => self.due += bytes,
            Progress::Begin { present: bytes, .. }
            | Progress::Read(bytes)
            | Progress::Moved { bytes, .. } => self.done += bytes,
            Progress::Lost { bytes, .. } => self.done = self.done.saturating_sub(bytes),
            _ => {}
        }
    }

    /// Writes the record of `progress` if it has one and records are wanted.
    fn record(&mut self, model: &str, progress: Progress) {
        let Some(out) = self.out.as_mut().filter(|_| self.records && self.wrote.is_ok()) else {
            return;
        };
        let (kind, fields) = match progress {
            Progress::Check { .. } | Progress::Checked { .. } => return,
            Progress::Read(_) | Progress::Moved { .. } if self.told.elapsed() < PERIOD => return,
            Progress::Due(_) => ("plan", json!({"bytes": self.due})),
            Progress::Read(_) => ("progress", json!({"moved": self.done})),
            Progress::Plan { files, bytes, present } => {
                ("plan", json!({"files": files, "bytes": bytes, "present": present}))
            }
            Progress::Begin { path, size, present } => {
                ("begin", json!({"path": path, "bytes": size, "present": present}))
            }
            Progress::Moved { path, .. } => ("progress", json!({"path": path, "moved": self.done})),
            Progress::Lost { path, bytes } => ("lost", json!({"path": path, "bytes": bytes})),
            Progress::Locked { path } => ("locked", json!({"path": path})),
            Progress::Retry { path, reason, wait } => {
                ("retry", json!({"path": path, "reason": reason, "wait": wait.as_secs_f64()}))
            }
            Progress::Done { path } => ("done", json!({"path": path})),
        };
        if kind == "progress" {
            self.told = Instant::now();
        }
        let mut record = Record::default().with("type", kind).with("model", model);
        if let Value::Object(fields) = fields {
            record = record.merge(fields.into());
        }
        self.wrote = out.lines([&record]);
    }
}
