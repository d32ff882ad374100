//! The server's log: entries that it hands to a function of its caller.

use std::fmt;
use std::sync::Arc;

use mlxk_core::Record;

/// The level of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Level of every request of HTTP.
    Debug,
    /// Level of completions, start and stop.
    Info,
    /// Level of failures.
    Error,
}

impl Level {
    /// The level's name in capitals, as logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Error => "ERROR",
        }
    }
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The entry's level.
    pub level: Level,
    /// The entry's message.
    pub message: String,
    /// The id of the request that the entry belongs to, if it belongs to one.
    pub id: Option<String>,
    /// Further fields of the entry.
    pub fields: Record,
}

/// A log, which passes each entry to one function.
#[derive(Clone)]
pub struct Log(Arc<dyn Fn(&Entry) + Send + Sync>);

impl Log {
    /// A log that calls `write` with each entry.
    pub fn new(write: impl Fn(&Entry) + Send + Sync + 'static) -> Log {
        Log(Arc::new(write))
    }

    /// A log that drops all entries.
    pub fn none() -> Log {
        Log::new(|_| {})
    }

    /// Logs an entry that belongs to no request.
    pub fn say(&self, level: Level, message: impl Into<String>) {
        let fields = Record::default();
        (self.0)(&Entry { level, message: message.into(), id: None, fields });
    }

    /// Logs an entry that belongs to the request `id`.
    pub fn request(&self, level: Level, id: &str, message: impl Into<String>, fields: Record) {
        (self.0)(&Entry { level, message: message.into(), id: Some(id.to_owned()), fields });
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}
