//! A model built without reading its weights: what it takes of its checkpoint, and what that costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlxk_core::{Architecture, Error, Facts, Kind, Plan, Result};
use mlxk_tensor::ops::MLX;
use serde_json::Value;

use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::file::{map, place};
use crate::checkpoint::formats::{Checkpoint, sanitize};
use crate::checkpoint::part::Part;
use crate::checkpoint::quantization::Quantization;
use crate::checkpoint::weights::{Inventory, LoadOptions, Weights};
use crate::registry;

/// A model in parts.
pub struct Parts {
    /// What it is like.
    pub architecture: Architecture,
    /// config.json and all its tensors, in MLX's form.
    pub checkpoint: Checkpoint,
    /// What the model makes of them.
    pub taken: Inventory,
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
    let Inventory { bytes, layers, partial, .. } = taken;
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
    let form = LoadOptions { ops: &MLX, widen: false, sketch: true, part };
    let quantization = Quantization::read(&checkpoint.config)?;
    let mut weights = Weights::new(checkpoint.tensors.clone(), quantization, form);
    registry::spec(architecture).load.run(&checkpoint.config, Cursor::root(&mut weights))?;
    Ok(Parts { architecture, checkpoint, taken: weights.finish()? })
}

/// What a model is like that can run.
pub fn architecture(plan: &Plan) -> Result<Architecture> {
    plan.runnable.clone().map_err(unsupported)?;
    plan.architecture.ok_or_else(|| unsupported("its architecture is not known".into()))
}

/// The model in MLX's form, its tensors over the mapped files.
pub fn read(facts: &Facts, architecture: Architecture) -> Result<Checkpoint> {
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
    let mut checkpoint = Checkpoint { config: config(facts)?, tensors };
    let spec = registry::spec(architecture);
    sanitize(&mut checkpoint, spec.sanitize, &spec.experts)?;
    Ok(checkpoint)
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
