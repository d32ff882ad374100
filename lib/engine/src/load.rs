//! Loading of a model from disk into memory.

use std::path::Path;

use mlx_rs::{Device, Stream};
use mlxk_core::policy::detect::attends_back_only;
use mlxk_core::{Architecture, Facts, Plan, Result};
use mlxk_models::checkpoint::adapter::Adapter;
use mlxk_models::checkpoint::cursor::Cursor;
use mlxk_models::checkpoint::formats::Checkpoint;
use mlxk_models::checkpoint::part::Part;
use mlxk_models::checkpoint::quantization::Quantization;
use mlxk_models::checkpoint::weights::{LoadOptions, Weights};
use mlxk_models::convert::fuse;
use mlxk_models::encoder::task::adapt;
use mlxk_models::encoder::{Encoder, LanguageOptions};
use mlxk_models::network::Network;
use mlxk_models::sketch::{Sketch, architecture, read, sketch};
use mlxk_models::speech::Speech;
use mlxk_models::{registry, vision};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::{CPU, MLX, Ops};

use crate::forward::Forward;
use crate::model::Model;
use crate::vision::LazyTower;

/// Loads the model of `facts` if `plan` says that it can run, on the device that MLX chooses.
///
/// Weights are mapped, not read, where the device computes with them as they lie on disk.
///
/// # Errors
/// If the model cannot run, if config.json is not one of its architecture, and if tensors are
/// missing, left over, or of a shape or type that the architecture does not have; all of this
/// before anything is computed.
pub fn load(facts: &Facts, plan: &Plan) -> Result<Model> {
    load_for(facts, plan, mlx::on_cpu()?)
}

/// Loads the model with an adapter, a folder in mlx-lm's form.
///
/// # Errors
/// As [`load`], and if the adapter cannot be read or is for another model.
pub fn load_adapted(facts: &Facts, plan: &Plan, adapter: &Path) -> Result<Model> {
    with(facts, plan, mlx::on_cpu()?, None, Some(Adapter::read(adapter)?))
}

/// Loads the model in the form for a CPU or in that for a GPU, which a CPU can run too.
///
/// # Errors
/// As [`load`].
pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<Model> {
    with(facts, plan, on_cpu, None, None)
}

/// Loads the part of the model that a rank takes, or all of it if `part` is none.
///
/// # Errors
/// As [`load`].
pub fn load_part(facts: &Facts, plan: &Plan, on_cpu: bool, part: Option<Part>) -> Result<Model> {
    with(facts, plan, on_cpu, part, None)
}

fn with(
    facts: &Facts,
    plan: &Plan,
    on_cpu: bool,
    part: Option<Part>,
    adapter: Option<Adapter>,
) -> Result<Model> {
    let LoadedNetwork { network, tower, stream } = network(facts, plan, on_cpu, part, adapter)?;
    let network = network.language()?;
    let mut forward = Forward::new(network, stream, on_cpu, part, plan.context_length);
    forward.tower = tower;
    Ok(Model::new(forward))
}

/// Network in memory, with its vision tower and its stream.
pub struct LoadedNetwork {
    /// The network.
    pub network: Network,
    /// Vision tower, if the model takes pictures.
    pub tower: Option<LazyTower>,
    /// Stream on which the network works.
    pub stream: Stream,
}

/// Loads the network of a model, or the part of it that a rank takes.
///
/// # Errors
/// As [`load`].
pub fn network(
    facts: &Facts,
    plan: &Plan,
    on_cpu: bool,
    part: Option<Part>,
    adapter: Option<Adapter>,
) -> Result<LoadedNetwork> {
    let architecture = architecture(plan)?;
    let mut checkpoint = read(facts, architecture)?;
    let mut adapter = adapter;
    if let Some(adapter) = &mut adapter {
        let sums = adapter.sums(&checkpoint.tensors);
        if !sums.tensors.is_empty() {
            checkpoint = summed(architecture, checkpoint, sums)?;
        }
    }
    of_checkpoint(architecture, checkpoint, on_cpu, part, adapter)
}

/// Loads the network of a checkpoint in MLX's form.
fn of_checkpoint(
    architecture: Architecture,
    checkpoint: Checkpoint,
    on_cpu: bool,
    part: Option<Part>,
    adapter: Option<Adapter>,
) -> Result<LoadedNetwork> {
    let Checkpoint { config, tensors } = checkpoint;
    let quantization = Quantization::read(&config)?;
    let device = Device::try_default().map_err(mlx::failed)?;
    let stream = Stream::new_with_device(&device);
    let ops: &dyn Ops = if on_cpu { &CPU } else { &MLX };
    let form = LoadOptions { ops, widen: on_cpu, sketch: false, part };
    let tower = registry::tower(architecture)
        .map(|load| LazyTower::new(load, config.clone(), vision::tensors(&tensors), form));
    let mut weights = Weights::new(tensors, quantization, form);
    if let Some(adapter) = adapter {
        weights.adapt(adapter)?;
    }
    let network = mlx_rs::with_stream(&stream, || {
        registry::spec(architecture).load.run(&config, Cursor::root(&mut weights))
    })?;
    weights.finish()?;
    Ok(LoadedNetwork { network, tower, stream })
}

/// Loads the network of a model as an encoder, and the stream on which it works; with the adapter
/// for `task` that the checkpoint has.
///
/// # Errors
/// As [`load`].
pub fn encoder(
    facts: &Facts,
    plan: &Plan,
    on_cpu: bool,
    task: Option<&str>,
) -> Result<(Box<dyn Encoder>, Stream)> {
    let architecture = architecture(plan)?;
    let mut checkpoint = read(facts, architecture)?;
    if let Some(task) = task {
        adapt(&mut checkpoint, task)?;
    }
    let LoadedNetwork { network, stream, .. } =
        of_checkpoint(architecture, checkpoint, on_cpu, None, None)?;
    let options = encoder_options(facts, plan, on_cpu);
    Ok((mlx_rs::with_stream(&stream, || network.encoder(options))?, stream))
}

/// Loads the network of a speech model, and the stream on which it works.
///
/// # Errors
/// As [`load`], and if the model takes no audio.
pub fn speech(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<(Speech, Stream)> {
    let LoadedNetwork { network, stream, .. } = network(facts, plan, on_cpu, None, None)?;
    Ok((network.speech()?, stream))
}

/// Sketches the network of a model as an encoder, whose weights are not read.
///
/// # Errors
/// As [`load`].
pub fn sketched_encoder(facts: &Facts, plan: &Plan) -> Result<Box<dyn Encoder>> {
    let options = encoder_options(facts, plan, mlx::on_cpu()?);
    Sketch::of(facts, plan, None)?.encoder(options)
}

fn encoder_options(facts: &Facts, plan: &Plan, on_cpu: bool) -> LanguageOptions {
    let stated = plan.context_length.and_then(|length| usize::try_from(length).ok());
    let encoder = plan.architecture.is_some_and(Architecture::is_encoder);
    LanguageOptions {
        causal: attends_back_only(facts) && !encoder,
        max_length: stated.unwrap_or(usize::MAX),
        on_cpu,
    }
}

/// Checkpoint with an adapter added to its weights; matrices that it changes are not quantised.
fn summed(
    architecture: Architecture,
    checkpoint: Checkpoint,
    adapter: Adapter,
) -> Result<Checkpoint> {
    let mut parts = sketch(architecture, checkpoint)?;
    let packed = fuse(&mut parts, adapter)?;
    let mut checkpoint = parts.checkpoint;
    if let Some(table) = checkpoint.config.get_mut("quantization").filter(|t| t.is_object()) {
        packed.into_keys().for_each(|name| table[name] = false.into());
    }
    Ok(checkpoint)
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use std::path::PathBuf;

    use mlxk_core::{Found, Inspected, Origin, inspect};

    use super::*;
    use mlxk_processor::Sampling;
    use serde_json::Value;

    fn path(case: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(case)
    }

    /// The tiny model `case`.
    pub fn model(case: &str, on_cpu: bool) -> Model {
        let (name, origin) = (case.to_owned(), Origin::Workspace);
        let found = Found { name, path: path(case), revision: None, origin };
        let Inspected { facts, plan, .. } = inspect(&found).unwrap();
        load_for(&facts, &plan, on_cpu).unwrap()
    }

    fn ids(case: &str, on_cpu: bool, sampling: &Sampling) -> (Vec<u32>, Vec<u32>) {
        let expected = std::fs::read(path(case).join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let list = |key: &str| serde_json::from_value::<Vec<u32>>(expected[key].clone()).unwrap();
        let mut model = model(case, on_cpu);
        let tokens = model.tokens(&list("prompt_ids"), sampling).unwrap();
        (tokens.take(24).map(Result::unwrap).collect(), list("greedy_ids"))
    }

    const GREEDY: Sampling = Sampling::GREEDY;

    #[test]
    fn queueing_ahead_changes_no_choice() {
        let sampling = Sampling { temperature: 0.8, top_p: 0.9, repetition_penalty: 1.3, ..GREEDY };
        let dry = Sampling { dry_multiplier: 5.0, dry_allowed_length: 1, ..GREEDY };
        assert_eq!(ids("llama", false, &sampling).0, ids("llama", true, &sampling).0);
        let (queued, greedy) = ids("qwen2", false, &dry);
        assert_eq!(queued, ids("qwen2", true, &dry).0);
        assert_ne!(queued[..greedy.len()], greedy, "a repetition is penalised");
    }
}
