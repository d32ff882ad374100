//! Tells the user how a transfer goes: a bar on a terminal, or records where they were asked for.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mlxk_cli::{Output, human};
use mlxk_core::{Record, Result};
use mlxk_hub::Event;
use serde_json::json;

/// How often a record says how far it is.
const PERIOD: Duration = Duration::from_secs(1);

/// One transfer's teller.
pub struct Teller<'a> {
    model: &'a str,
    bar: ProgressBar,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    out: &'a mut Output,
    /// Whether records are wanted.
    records: bool,
    told: Instant,
    moved: u64,
    wrote: Result<()>,
}

impl<'a> Teller<'a> {
    /// Of the transfer of `model`; with `records`, every event of note is one on standard output.
    pub fn new(model: &'a str, records: bool, out: &'a mut Output) -> Teller<'a> {
        let style = ProgressStyle::with_template(concat!(
            "{prefix} {wide_bar} {decimal_bytes}/{decimal_total_bytes} ",
            "{decimal_bytes_per_sec}, {eta} {msg}"
        ));
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::new(0).with_style(style).with_prefix(model.to_owned()),
            false => ProgressBar::hidden(),
        };
        let state = State { out, records, told: Instant::now(), moved: 0, wrote: Ok(()) };
        Teller { model, bar, state: Mutex::new(state) }
    }

    /// Takes note of what happens.
    pub fn tell(&self, event: Event) {
        match event {
            Event::Plan { bytes, present, .. } => {
                self.bar.set_length(bytes);
                self.bar.set_position(present);
                self.bar.set_message("");
                self.bar.reset_eta();
            }
            Event::Check { bytes } => {
                self.bar.set_length(bytes);
                self.bar.set_position(0);
                self.bar.set_message("comparing");
            }
            Event::Checked { bytes } => self.bar.inc(bytes),
            Event::Begin { present, .. } => self.state().moved += present,
            Event::Moved { bytes, .. } => {
                self.bar.inc(bytes);
                let mut state = self.state();
                state.moved += bytes;
                if state.told.elapsed() < PERIOD {
                    return;
                }
                state.told = Instant::now();
            }
            Event::Lost { bytes, .. } => {
                self.bar.set_position(self.bar.position().saturating_sub(bytes));
                let mut state = self.state();
                state.moved = state.moved.saturating_sub(bytes);
            }
            Event::Retry { reason, .. } => self.bar.set_message(reason.to_owned()),
            Event::Done { .. } => self.bar.set_message(""),
            Event::Locked { path } => self.bar.suspend(|| {
                let subject = match path {
                    "" => self.model.to_owned(),
                    path => format!("{}: {path}", self.model),
                };
                let message = format!("{subject}: another program is fetching it");
                self.state().out.remark(&message, "it ends by itself when that one does");
            }),
        }
        self.record(event);
    }

    /// Ends the bar; an error if what was told could not be written.
    pub fn finish(self) -> Result<()> {
        self.bar.finish_and_clear();
        self.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).wrote
    }

    fn record(&self, event: Event) {
        let mut state = self.state();
        if !state.records || state.wrote.is_err() {
            return;
        }
        let (kind, fields) = match event {
            Event::Plan { files, bytes, present } => {
                ("plan", json!({"files": files, "bytes": bytes, "present": present}))
            }
            Event::Check { .. } | Event::Checked { .. } => return,
            Event::Begin { path, size, present } => {
                ("begin", json!({"path": path, "bytes": size, "present": present}))
            }
            Event::Moved { path, .. } => ("progress", json!({"path": path, "moved": state.moved})),
            Event::Lost { path, bytes } => ("lost", json!({"path": path, "bytes": bytes})),
            Event::Locked { path } => ("locked", json!({"path": path})),
            Event::Retry { path, reason, wait } => {
                ("retry", json!({"path": path, "reason": reason, "wait": wait.as_secs_f64()}))
            }
            Event::Done { path } => ("done", json!({"path": path})),
        };
        let mut record = Record::default().with("type", kind).with("model", self.model);
        if let serde_json::Value::Object(fields) = fields {
            record = record.merge(fields.into());
        }
        state.wrote = state.out.lines([&record]);
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// `3 files, 1.2GB`
pub fn amount(files: usize, bytes: u64) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    format!("{files} {noun}, {}", human::size(bytes))
}
