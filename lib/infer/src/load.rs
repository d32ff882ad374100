//! From what is known of a model on disk to the model in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};
use mlx_rs::{Device, Stream};
use mlxk_core::{Architecture, Error, Facts, Kind, Plan, Result, tensors};
use serde_json::Value;

use crate::adapt::{Checkpoint, adapt};
use crate::adapter::{self, Adapter};
use crate::decode::Model;
use crate::distributed::Part;
use crate::quantization::Quantization;
use crate::weights::{Bytes, Form, Taken, Tensor, Weights, tensor};
use crate::{kernels, mlx, models};

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

/// Loads it in the form for a CPU or in that for a GPU, which a CPU can run too.
///
/// # Errors
/// As [`load`].
pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<Model> {
    with(facts, plan, on_cpu, None, None)
}

/// Loads what a rank has of it. Errors as [`load`].
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
    let architecture = architecture(plan)?;
    let mut checkpoint = read(facts, architecture)?;
    let mut adapter = adapter;
    if let Some(adapter) = &mut adapter {
        let sums = adapter.sums(&checkpoint);
        if !sums.tensors.is_empty() {
            checkpoint = summed(architecture, checkpoint, sums)?;
        }
    }
    let Checkpoint { config, tensors } = checkpoint;
    let quantization = Quantization::read(&config)?;
    let device = Device::try_default().map_err(mlx::failed)?;
    let stream = Stream::new_with_device(&device);
    let kernels = if on_cpu { &kernels::CPU } else { &kernels::MLX };
    let form = Form { kernels, widen: on_cpu, sketch: false, part };
    let mut weights = Weights::new(tensors, quantization, form);
    if let Some(adapter) = adapter {
        weights.adapt(adapter)?;
    }
    let network =
        mlx_rs::with_stream(&stream, || models::load(architecture)(&config, weights.root()))?;
    weights.finish()?;
    Ok(Model::new(network, stream, on_cpu, part, plan.context_length))
}

/// The model with an adapter in its weights; matrices that it changes are plain.
fn summed(
    architecture: Architecture,
    checkpoint: Checkpoint,
    adapter: Adapter,
) -> Result<Checkpoint> {
    let mut parts = sketch(architecture, checkpoint, None)?;
    let packed = adapter::merge(&mut parts, adapter)?;
    let mut checkpoint = parts.checkpoint;
    if let Some(table) = checkpoint.config.get_mut("quantization").filter(|t| t.is_object()) {
        packed.into_keys().for_each(|name| table[name] = false.into());
    }
    Ok(checkpoint)
}

/// A model in parts.
pub struct Parts {
    /// What it is like.
    pub architecture: Architecture,
    /// config.json and all its tensors, in MLX's form.
    pub checkpoint: Checkpoint,
    /// What the model makes of them.
    pub taken: Taken,
}

/// The parts of the model of `facts`, which is sketched for this: nothing is read but headers.
/// Errors as [`load`].
pub fn parts(facts: &Facts, plan: &Plan) -> Result<Parts> {
    let architecture = architecture(plan)?;
    sketch(architecture, read(facts, architecture)?, None)
}

/// What a rank would have of a model. Errors as [`load`].
pub fn sketched(facts: &Facts, plan: &Plan, part: Option<Part>) -> Result<Sketched> {
    let architecture = architecture(plan)?;
    let taken = sketch(architecture, read(facts, architecture)?, part)?.taken;
    let Taken { bytes, layers, partial, .. } = taken;
    Ok(Sketched { bytes, layers, shared: !partial.is_empty() })
}

/// What is known of a part of a model without loading it.
pub struct Sketched {
    /// Bytes of its weights.
    pub bytes: u64,
    /// The layers of the whole, if some of them can be loaded alone.
    pub layers: Option<usize>,
    /// Whether it holds shares of layers.
    pub shared: bool,
}

/// The parts of a model in MLX's form, or of what a rank has of it. Errors if it is none.
pub fn sketch(
    architecture: Architecture,
    checkpoint: Checkpoint,
    part: Option<Part>,
) -> Result<Parts> {
    let form = Form { kernels: &kernels::MLX, widen: false, sketch: true, part };
    let quantization = Quantization::read(&checkpoint.config)?;
    let mut weights = Weights::new(checkpoint.tensors.clone(), quantization, form);
    models::load(architecture)(&checkpoint.config, weights.root())?;
    Ok(Parts { architecture, checkpoint, taken: weights.finish()? })
}

/// What a model is like that can run.
fn architecture(plan: &Plan) -> Result<Architecture> {
    plan.runnable.clone().map_err(unsupported)?;
    plan.architecture.ok_or_else(|| unsupported("its architecture is not known".into()))
}

/// The model in MLX's form, its tensors over the mapped files.
fn read(facts: &Facts, architecture: Architecture) -> Result<Checkpoint> {
    let mut tensors = BTreeMap::new();
    for shard in facts.weights() {
        let path = facts.path(&shard.path);
        let broken = |why: &String| Error::new(Kind::Unhealthy, path.display().to_string(), why);
        let header = shard.header.as_ref().map_err(broken)?;
        let file = Arc::new(map(&path)?);
        for tensor in &header.tensors {
            tensors.insert(tensor.name.clone(), place(tensor, &file, &path)?);
        }
    }
    adapt(architecture, Checkpoint { config: config(facts)?, tensors })
}

/// Maps a file privately.
pub fn map(path: &Path) -> Result<MmapMut> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the mapping is private, so nothing here changes the file; a file that someone else
    // cuts short while a model runs ends the process, as it does every program that maps files.
    unsafe { MmapOptions::new().no_reserve_swap().map_copy(&file) }.map_err(|e| Error::io(path, e))
}

/// A tensor of a mapped file, as its header tells.
pub fn place(tensor: &tensors::Tensor, file: &Arc<MmapMut>, path: &Path) -> Result<Tensor> {
    let range = tensor.range.start as usize..tensor.range.end as usize;
    let refused = |why: String| {
        Error::new(
            Kind::InvalidModel,
            path.display().to_string(),
            format!("{}: {why}", tensor.name),
        )
    };
    if range.end > file.len() {
        return Err(refused("the file was cut short".into()));
    }
    let dtype = tensor::in_memory(tensor.dtype)
        .ok_or_else(|| refused(format!("elements of type {} cannot run", tensor.dtype)))?;
    Ok(Tensor::stored(dtype, tensor.shape.clone(), Bytes::within(file, range)))
}

/// config.json as a whole.
pub fn config(facts: &Facts) -> Result<Value> {
    let path = facts.path("config.json").display().to_string();
    let object = facts
        .config
        .object()
        .ok_or_else(|| Error::new(Kind::InvalidModel, &path, "not a JSON object"))?;
    object.read().map_err(|e| Error::new(Kind::InvalidModel, &path, e.to_string()))
}

fn unsupported(why: String) -> Error {
    Error::new(Kind::RuntimeIncompatible, "", why)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use std::path::PathBuf;

    use mlxk_core::{Found, Origin, health, policy, probe};

    use super::*;
    use mlxk_processor::Sampling;

    fn path(case: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(case)
    }

    /// The tiny model `case`.
    pub(crate) fn model(case: &str, on_cpu: bool) -> Model {
        let (name, origin) = (case.to_owned(), Origin::Workspace);
        let found = Found { name, path: path(case), revision: None, origin };
        let facts = probe::read(&found).unwrap();
        let plan = policy::decide(&facts, &health::check(&facts));
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
        assert_eq!(ids("llama", false, &sampling).0, ids("llama", true, &sampling).0);
    }
}
