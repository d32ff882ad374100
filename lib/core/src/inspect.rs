//! Inspection of a model: its files are read once, its health is checked, and its plan is decided.

use crate::error::Result;
use crate::health::{self, Health};
use crate::policy::{self, Plan};
use crate::probe::{self, Facts};
use crate::store::Found;

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
/// If the directory cannot be listed. A broken model is not an error: its health states the defect.
pub fn inspect(found: &Found) -> Result<Inspected> {
    let facts = probe::read(found)?;
    let health = health::check(&facts);
    let plan = policy::decide(&facts, &health);
    Ok(Inspected { facts, health, plan })
}
