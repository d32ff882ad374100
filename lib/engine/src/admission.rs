//! Admission of models: whether one can run here, decided before a byte of its weights is read.

use mlxk_core::{Error, Facts, Health, Kind, Plan, Result, Task};
use mlxk_tensor::mlx;

use crate::cost::Cost;
use crate::host_memory;
use crate::prefix_cache::CacheOptions;

/// Refuses a model that cannot write text here, with the reason; else returns a warning if memory may
/// be short for the model with caches as `options` say.
///
/// # Errors
/// [`Kind::Unhealthy`], [`Kind::CapabilityNotSupported`] if the model is made for something else,
/// [`Kind::RuntimeIncompatible`], [`Kind::InsufficientMemory`], and those of a model that cannot be
/// loaded.
pub fn admit(
    facts: &Facts,
    health: &Health,
    plan: &Plan,
    options: &CacheOptions,
) -> Result<Option<String>> {
    admit_part(facts, health, plan)?;
    fit(facts, plan, &Cost::of(facts, plan, mlx::on_cpu()?, None)?.with(options))
}

/// Refuses a model that cannot embed text here, with the reason; else returns a warning if memory
/// may be short for it. A model that writes text embeds too if it is said how its vectors are `pooled`.
///
/// # Errors
/// As [`admit`].
pub fn admit_embedder(
    facts: &Facts,
    health: &Health,
    plan: &Plan,
    pooled: bool,
) -> Result<Option<String>> {
    match plan.task {
        Task::Text | Task::Vision if pooled => admit_part(facts, health, plan)?,
        _ => suits_embedding(facts, health, plan)?,
    }
    fit(facts, plan, &Cost::of(facts, plan, mlx::on_cpu()?, None)?)
}

/// Refuses a model that cannot score pairs of texts here, with the reason; else returns a warning if
/// memory may be short for it.
///
/// # Errors
/// As [`admit`].
pub fn admit_reranker(facts: &Facts, health: &Health, plan: &Plan) -> Result<Option<String>> {
    suits_reranking(facts, health, plan)?;
    fit(facts, plan, &Cost::of(facts, plan, mlx::on_cpu()?, None)?)
}

/// Refuses a model that cannot write down speech here, with the reason.
///
/// # Errors
/// If the model is unhealthy, cannot run or is for another task; [`Kind::InsufficientMemory`] if the
/// weights take most of the free memory.
pub fn admit_speech(facts: &Facts, health: &Health, plan: &Plan) -> Result<()> {
    suits_speech(facts, health, plan)?;
    fit_speech(facts, &Cost::of(facts, plan, mlx::on_cpu()?, None)?)
}

/// Refuses a model that cannot write down speech, with the reason.
///
/// # Errors
/// If the model is unhealthy, cannot run, or is for another task.
pub fn suits_speech(facts: &Facts, health: &Health, plan: &Plan) -> Result<()> {
    suits(Task::Audio, "not a speech model: it writes down no speech", facts, health, plan)
}

/// Refuses a model that cannot embed text, with the reason.
///
/// # Errors
/// If the model is unhealthy, cannot run, or is for another task.
pub fn suits_embedding(facts: &Facts, health: &Health, plan: &Plan) -> Result<()> {
    let other = "not an embedding model: it does not turn text into vectors";
    suits(Task::Embedding, other, facts, health, plan)
}

/// Refuses a model that cannot score pairs of texts, with the reason.
///
/// # Errors
/// If the model is unhealthy, cannot run, or is for another task.
pub fn suits_reranking(facts: &Facts, health: &Health, plan: &Plan) -> Result<()> {
    suits(Task::Rerank, "not a reranker: it does not score pairs of texts", facts, health, plan)
}

/// Refuses a model for another task than `task`, for the reason `other`.
fn suits(task: Task, other: &str, facts: &Facts, health: &Health, plan: &Plan) -> Result<()> {
    let refuse = |kind, reason: &str| Error::new(kind, &facts.found.name, reason);
    if !health.healthy {
        return Err(refuse(Kind::Unhealthy, &health.reason));
    }
    if plan.task != task {
        let refused = refuse(Kind::CapabilityNotSupported, other);
        return Err(match plan.task {
            Task::Text | Task::Vision if task == Task::Embedding => {
                refused.hint("mlxk-run lets it write text; with --pooling last or mean it embeds")
            }
            Task::Text | Task::Vision => refused.hint("mlxk-run lets it write text"),
            Task::Embedding => {
                refused.hint("mlxk-embed turns text into vectors with it, and --search ranks them")
            }
            Task::Rerank => refused
                .hint("mlxk-embed --rerank ranks texts with it, as /v1/rerank of mlxk-serve does"),
            Task::Audio => refused.hint("mlxk-run --audio writes down speech with it"),
        });
    }
    if let Err(reason) = &plan.runnable {
        return Err(refuse(Kind::RuntimeIncompatible, reason));
    }
    Ok(())
}

/// Refuses a model whose weights do not fit into memory; else returns a warning if its context may
/// not.
///
/// # Errors
/// [`Kind::InsufficientMemory`].
pub fn fit(facts: &Facts, plan: &Plan, cost: &Cost) -> Result<Option<String>> {
    host_memory::check(cost, plan.context_length).map_err(|mut e| {
        e.subject = facts.found.name.clone();
        e
    })
}

/// Refuses a speech model whose weights take most of the free memory.
///
/// # Errors
/// [`Kind::InsufficientMemory`].
pub fn fit_speech(facts: &Facts, cost: &Cost) -> Result<()> {
    host_memory::check_speech(cost).map_err(|e| e.about(&*facts.found.name))
}

/// Refuses a model that cannot write text, of which this process will load a part only.
///
/// # Errors
/// If the model is unhealthy, cannot run, or is for another task.
pub fn admit_part(facts: &Facts, health: &Health, plan: &Plan) -> Result<()> {
    let refuse = |kind, reason: &str| Err(Error::new(kind, &facts.found.name, reason));
    if !health.healthy {
        return refuse(Kind::Unhealthy, &health.reason);
    }
    match plan.task {
        Task::Embedding => {
            let reason = "an embedding model: it turns text into vectors and writes none";
            return refuse(Kind::CapabilityNotSupported, reason)
                .map_err(|e| e.hint("mlxk-embed turns text into vectors with it"));
        }
        Task::Rerank => {
            let reason = "a reranker: it scores pairs of texts and writes none";
            return refuse(Kind::CapabilityNotSupported, reason)
                .map_err(|e| e.hint("mlxk-embed --rerank ranks texts with it"));
        }
        Task::Audio => {
            let reason = "an audio model: it needs sound, and takes no prompt alone";
            return refuse(Kind::CapabilityNotSupported, reason)
                .map_err(|e| e.hint("mlxk-run --audio writes down speech with it"));
        }
        Task::Text | Task::Vision => {}
    }
    if let Err(reason) = &plan.runnable {
        return refuse(Kind::RuntimeIncompatible, reason);
    }
    Ok(())
}
