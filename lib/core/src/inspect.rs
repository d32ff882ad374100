//! Inspection of a model: its files are read once, its health is checked, and its plan is decided.

use std::fs;
use std::io;

use crate::error::{Error, Kind, Result};
use crate::health::{self, Health};
use crate::policy::{self, Plan};
use crate::probe::{self, Facts};
use crate::store::directory::is_absent;
use crate::store::{Found, Origin};

/// A model whose files were read and checked.
#[derive(Debug)]
pub struct Inspected {
    /// The content of the model's directory.
    pub facts: Facts,
    /// The verdict on the model's files.
    pub health: Health,
    /// The model's task, and whether it can run.
    pub plan: Plan,
}

/// Reads and checks a model's directory; no tensor is loaded and nothing is downloaded.
///
/// # Errors
/// `ModelNotFound` if the model does not exist, or was removed while it was read, so that
/// [`Error::is_absent`] is true. A broken or unreadable model is not an error: its health states the
/// defect.
pub fn inspect(found: &Found) -> Result<Inspected> {
    let facts = probe::read(found).map_err(|e| if e.is_absent() { gone(found) } else { e })?;
    let health = health::check(&facts);
    if !health.healthy && !exists(found) {
        return Err(gone(found));
    }
    let plan = policy::decide(&facts, &health);
    Ok(Inspected { facts, health, plan })
}

fn exists(found: &Found) -> bool {
    let path = match &found.origin {
        Origin::Cache { repo } if found.revision.is_none() => repo,
        _ => &found.path,
    };
    // A directory that cannot be entered may hold it.
    !fs::symlink_metadata(path).is_err_and(|e| is_absent(&e))
}

fn gone(found: &Found) -> Error {
    let cause = io::Error::from(io::ErrorKind::NotFound);
    Error::new(Kind::ModelNotFound, &found.name, "it was removed meanwhile").caused_by(cause)
}
