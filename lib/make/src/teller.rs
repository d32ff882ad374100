//! Tells how far it is: a bar on a terminal, or records where they were asked for.

use std::time::{Duration, Instant};

use mlxk_cli::{Bar, Output};
use mlxk_core::Progress;
use mlxk_core::{Record, Result};

/// How often a record says how far it is.
const PERIOD: Duration = Duration::from_secs(1);

/// The teller of one conversion.
pub struct Teller<'a> {
    model: &'a str,
    bar: Bar,
    /// Where records go, if they are wanted.
    records: Option<&'a mut Output>,
    due: u64,
    moved: u64,
    told: Instant,
}

impl<'a> Teller<'a> {
    /// Of what is made of `model`.
    pub fn new(model: &'a str, records: Option<&'a mut Output>) -> Teller<'a> {
        Teller { model, bar: Bar::new(), records, due: 0, moved: 0, told: Instant::now() }
    }

    /// Takes note of how far it is.
    ///
    /// # Errors
    /// If a record cannot be written.
    pub fn heed(&mut self, progress: Progress) -> Result<()> {
        self.bar.heed(progress);
        match progress {
            Progress::Due(bytes) => {
                self.due += bytes;
                self.record("plan", "bytes", self.due)
            }
            Progress::Read(bytes) => {
                self.moved += bytes;
                if self.told.elapsed() < PERIOD {
                    return Ok(());
                }
                self.told = Instant::now();
                self.record("progress", "moved", self.moved)
            }
        }
    }

    fn record(&mut self, kind: &str, field: &str, bytes: u64) -> Result<()> {
        let Some(out) = &mut self.records else { return Ok(()) };
        let record = Record::default().with("type", kind).with("model", self.model);
        out.lines([&record.with(field, bytes)])
    }
}
