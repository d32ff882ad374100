//! Memory cost of a model, and the check that it can run, before it is loaded.

use mlxk_core::{Error, Facts, Found, Inspected, Kind, Plan, Result, Task, inspect};
use mlxk_processor::Processor;
use mlxk_tensor::mlx;

use crate::admission;
use crate::cost::Cost;
use crate::embed_processor::EmbedProcessor;
use crate::pair_processor::PairProcessor;

/// Model that can run, with its cost; it need not be loaded.
pub struct Costed {
    /// Content of the model's directory.
    pub facts: Facts,
    /// Plan by which the model runs.
    pub plan: Plan,
    /// Cost of the whole model in memory.
    pub cost: Cost,
}

/// Inspects a model without loading it.
///
/// # Errors
/// If the model cannot run, or its weights do not fit into memory.
pub fn read(found: &Found) -> Result<Costed> {
    read_for(found, None)
}

/// Inspects a model without loading it, for a process that will load only a part of it.
///
/// # Errors
/// If the model cannot write text.
pub fn read_part(found: &Found) -> Result<Costed> {
    let Inspected { facts, health, plan } = inspect(found)?;
    admission::admit_part(&facts, &health, &plan).map_err(|e| routed(e, plan.task))?;
    let cost = Cost::of(&facts, &plan, mlx::on_cpu()?, None)?;
    Ok(Costed { facts, plan, cost })
}

/// Reads the processor of a model that writes text.
///
/// # Errors
/// If the model cannot write text here, or its processor cannot be read.
pub fn processor(found: &Found) -> Result<Processor> {
    let Costed { facts, plan, .. } = read_for(found, Some(Task::Text))?;
    Processor::read(&facts, &plan)
}

/// Reads the processor of a part of a model that writes text.
///
/// # Errors
/// If the model cannot run, or one of its files cannot be used.
pub fn processor_of_part(found: &Found) -> Result<Processor> {
    let Costed { facts, plan, .. } = read_part(found)?;
    Processor::read(&facts, &plan)
}

/// Reads the processor of an embedding model.
///
/// # Errors
/// If the model cannot embed here, or its processor cannot be read.
pub fn embed_processor(found: &Found) -> Result<EmbedProcessor> {
    let Costed { facts, plan, .. } = read_for(found, Some(Task::Embedding))?;
    EmbedProcessor::read(&facts, &plan)
}

/// Reads the processor of a reranker.
///
/// # Errors
/// If the model cannot score here, or its processor cannot be read.
pub fn pair_processor(found: &Found) -> Result<PairProcessor> {
    let Costed { facts, plan, .. } = read_for(found, Some(Task::Rerank))?;
    PairProcessor::read(&facts, &plan)
}

/// Checks that a model can write down speech here.
///
/// # Errors
/// If it cannot.
pub fn speech(found: &Found) -> Result<()> {
    read_for(found, Some(Task::Audio)).map(drop)
}

/// Inspects a model that is to do `task`, or its own task if `None`.
fn read_for(found: &Found, task: Option<Task>) -> Result<Costed> {
    let Inspected { facts, health, plan } = inspect(found)?;
    match task.unwrap_or(plan.task) {
        Task::Embedding => admission::suits_embedding(&facts, &health, &plan),
        Task::Rerank => admission::suits_reranking(&facts, &health, &plan),
        Task::Audio => admission::suits_speech(&facts, &health, &plan),
        Task::Text | Task::Vision => admission::admit_part(&facts, &health, &plan),
    }
    .map_err(|e| routed(e, plan.task))?;
    let cost = Cost::of(&facts, &plan, mlx::on_cpu()?, None)?;
    match plan.task {
        Task::Audio => admission::fit_speech(&facts, &cost)?,
        _ => drop(admission::fit(&facts, &plan, &cost)?),
    }
    Ok(Costed { facts, plan, cost })
}

/// The refusal of a model whose task is another one, with the routes of a server that use it.
fn routed(error: Error, task: Task) -> Error {
    let routes = match task {
        _ if error.kind != Kind::CapabilityNotSupported => return error,
        Task::Text | Task::Vision => "POST /v1/chat/completions lets it write text",
        Task::Embedding => "POST /v1/embeddings turns text into vectors with it",
        Task::Rerank => "POST /v1/rerank scores texts with it",
        Task::Audio => "POST /v1/audio/transcriptions writes down speech with it",
    };
    error.hint(routes)
}
