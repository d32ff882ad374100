//! Sketch of a model, built without reading its weights: what it takes of its checkpoint, and the
//! cache of a sequence.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx_rs::{Array, Dtype};
use mlxk_core::{Architecture, Error, Facts, Kind, Plan, Result};
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::MLX;
use serde_json::{Value, json};

use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::file::{map, place};
use crate::checkpoint::formats::{Checkpoint, sanitize};
use crate::checkpoint::part::Part;
use crate::checkpoint::quantization::Quantization;
use crate::checkpoint::weights::{Inventory, LoadOptions, Weights};
use crate::encoder::{Encoder, LanguageOptions};
use crate::network::Network;
use crate::{registry, vision};

/// Checkpoint of a model, and what the model takes of it.
pub struct Parts {
    /// Architecture of the model.
    pub architecture: Architecture,
    /// config.json and all tensors, in MLX's form.
    pub checkpoint: Checkpoint,
    /// Tensors that the model takes and leaves.
    pub taken: Inventory,
}

/// Checkpoint of the model of `facts`, sketched: only the headers of files are read. Errors as
/// [`Sketch::of`].
pub fn parts(facts: &Facts, plan: &Plan) -> Result<Parts> {
    let architecture = architecture(plan)?;
    sketch(architecture, read(facts, architecture)?)
}

/// Checkpoint of a model in MLX's form, sketched. Errors as [`Sketch::of`].
pub fn sketch(architecture: Architecture, checkpoint: Checkpoint) -> Result<Parts> {
    let taken = Sketch::new(architecture, &checkpoint, None)?.inventory;
    Ok(Parts { architecture, checkpoint, taken })
}

/// Network whose weights are not read: arrays of the right shapes and types, which are never filled.
pub struct Sketch {
    network: Network,
    /// Tensors that the model takes and leaves.
    pub inventory: Inventory,
    /// Bytes of the tensors of its vision tower, which is loaded at the first picture; 0 if the model
    /// has none that can run.
    pub tower: u64,
}

impl Sketch {
    /// Sketch of the model of `facts`, or of the part of it that a rank takes; only the headers of
    /// files are read.
    ///
    /// # Errors
    /// If the model cannot run, if config.json is not one of its architecture, and if tensors are
    /// missing, left over, or of a shape or type that the architecture does not have.
    pub fn of(facts: &Facts, plan: &Plan, part: Option<Part>) -> Result<Sketch> {
        let architecture = architecture(plan)?;
        Sketch::new(architecture, &read(facts, architecture)?, part)
    }

    fn new(
        architecture: Architecture,
        checkpoint: &Checkpoint,
        part: Option<Part>,
    ) -> Result<Sketch> {
        let form = LoadOptions { ops: &MLX, widen: false, sketch: true, part };
        let quantization = Quantization::read(&checkpoint.config)?;
        let mut weights = Weights::new(checkpoint.tensors.clone(), quantization, form);
        let root = Cursor::root(&mut weights);
        let network = registry::spec(architecture).load.run(&checkpoint.config, root)?;
        // A tower that cannot be loaded is refused at the first picture; text runs without it.
        let tower = registry::tower(architecture)
            .and_then(|load| {
                vision::load(load, &checkpoint.config, &checkpoint.tensors, form).ok()?
            })
            .map_or(0, |(_, taken)| taken.bytes);
        Ok(Sketch { network, inventory: weights.finish()?, tower })
    }

    /// Cache of a sequence of one token, as the network has it on a CPU or on a GPU; an encoder has
    /// none. MLX is lazy: the shapes and types of the arrays are known, and nothing is computed.
    ///
    /// # Errors
    /// If the network cannot take a token.
    pub fn cache(&self, on_cpu: bool) -> Result<Cache> {
        let (Network::Language(network) | Network::Scorer(network, _)) = &self.network else {
            return Ok(Cache { slots: Vec::new() });
        };
        let cache = || {
            let mut cache = network.cache();
            let mut inputs = network.embed(&Array::from_slice(&[0u32], &[1, 1]), &[])?;
            if on_cpu {
                // A CPU computes with 32-bit floats alone.
                inputs.h = inputs.h.as_dtype(Dtype::Float32)?;
            }
            network.forward(inputs, &mut Sequences::one(&mut cache, 1))?;
            Ok(cache)
        };
        cache().map_err(mlx::failed)
    }
}

impl Sketch {
    /// The network as an encoder, which knows its sizes, and encodes nothing.
    ///
    /// # Errors
    /// If a language model cannot take a token.
    pub fn encoder(self, options: LanguageOptions) -> Result<Box<dyn Encoder>> {
        self.network.encoder(options)
    }
}

/// Architecture of a model. Errors if it cannot run.
pub fn architecture(plan: &Plan) -> Result<Architecture> {
    plan.runnable.clone().map_err(unsupported)?;
    plan.architecture.ok_or_else(|| unsupported("its architecture is not known".into()))
}

/// Checkpoint of the model in MLX's form, its tensors over the mapped files.
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

/// Whole content of config.json. Errors if it is no JSON object.
pub fn config(facts: &Facts) -> Result<Value> {
    if !facts.config.exists() {
        // Static embeddings have none.
        return Ok(json!({}));
    }
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
