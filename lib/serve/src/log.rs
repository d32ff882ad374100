//! What the server tells its owner.

use std::fmt;
use std::sync::Arc;

use mlxk_core::Record;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every request.
    Debug,
    /// What a server is there for: answers.
    Info,
    /// What failed.
    Error,
}

impl Level {
    /// As it stands in logs.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Error => "ERROR",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How much it matters.
    pub level: Level,
    /// What happened.
    pub message: String,
    /// The id of the request, if it was at one.
    pub id: Option<String>,
    /// More about it.
    pub fields: Record,
}

/// Who is told.
#[derive(Clone)]
pub struct Log(Arc<dyn Fn(&Entry) + Send + Sync>);

impl Log {
    /// `tell` is told.
    pub fn new(tell: impl Fn(&Entry) + Send + Sync + 'static) -> Log {
        Log(Arc::new(tell))
    }

    /// Nobody is told.
    pub fn none() -> Log {
        Log::new(|_| {})
    }

    /// Tells what happened at no request.
    pub fn say(&self, level: Level, message: impl Into<String>) {
        let fields = Record::default();
        (self.0)(&Entry { level, message: message.into(), id: None, fields });
    }

    /// Tells what happened at the request `id`.
    pub fn tell(&self, level: Level, id: &str, message: impl Into<String>, fields: Record) {
        (self.0)(&Entry { level, message: message.into(), id: Some(id.to_owned()), fields });
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}
