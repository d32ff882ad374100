//! Whether a model is let in to run: decided before a byte of its weights is read.

use mlxk_core::{Error, Facts, Health, Kind, Plan, Result, Task};

use crate::host_memory;

/// Refuses a model that cannot write text here, with the reason; else says what its user should
/// know before it is loaded.
///
/// # Errors
/// [`Kind::Unhealthy`], [`Kind::CapabilityNotSupported`] if it is made for something else,
/// [`Kind::RuntimeIncompatible`], [`Kind::InsufficientMemory`].
pub fn admit(facts: &Facts, health: &Health, plan: &Plan) -> Result<Option<String>> {
    admit_part(facts, health, plan)?;
    room(facts, plan)
}

/// Refuses a model that cannot embed text here, with the reason; else says what its user should know
/// before it is loaded.
///
/// # Errors
/// As [`admit`].
pub fn admit_embedder(facts: &Facts, health: &Health, plan: &Plan) -> Result<Option<String>> {
    let refuse = |kind, reason: &str| Error::new(kind, &facts.found.name, reason);
    if !health.healthy {
        return Err(refuse(Kind::Unhealthy, &health.reason));
    }
    if plan.task != Task::Embedding {
        let reason = "not an embedding model: it does not turn text into vectors";
        let refused = refuse(Kind::CapabilityNotSupported, reason);
        return Err(match plan.task {
            Task::Text | Task::Vision => refused.hint("mlxk-run lets it write text"),
            Task::Embedding | Task::Audio => refused,
        });
    }
    if let Err(reason) = &plan.runnable {
        return Err(refuse(Kind::RuntimeIncompatible, reason));
    }
    room(facts, plan)
}

/// What the user should know about memory; an error if the weights do not fit.
fn room(facts: &Facts, plan: &Plan) -> Result<Option<String>> {
    host_memory::check(facts, plan).map_err(|mut e| {
        e.subject = match e.kind {
            Kind::InsufficientMemory => facts.found.name.clone(),
            _ => facts.path(&e.subject).display().to_string(),
        };
        e
    })
}

/// The same for a model of which a part will be loaded here: whether there is room is told later.
///
/// # Errors
/// As [`admit`], but for memory.
pub fn admit_part(facts: &Facts, health: &Health, plan: &Plan) -> Result<()> {
    let refuse = |kind, reason: &str| Err(Error::new(kind, &facts.found.name, reason));
    if !health.healthy {
        return refuse(Kind::Unhealthy, &health.reason);
    }
    match plan.task {
        Task::Embedding => {
            let reason = "an embedding model: it turns text into vectors and writes none";
            return refuse(Kind::CapabilityNotSupported, reason);
        }
        Task::Audio => {
            let reason = "an audio model: it needs sound, and takes no prompt alone";
            return refuse(Kind::CapabilityNotSupported, reason);
        }
        Task::Text | Task::Vision => {}
    }
    if let Err(reason) = &plan.runnable {
        return refuse(Kind::RuntimeIncompatible, reason);
    }
    Ok(())
}
