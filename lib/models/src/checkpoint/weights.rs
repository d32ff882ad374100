//! Tensors of a checkpoint, each taken exactly once: tensors that no layer takes are an error.

use std::collections::{BTreeMap, BTreeSet};

use mlxk_core::quantization::QuantSpec;
use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::ops::Ops;

use super::adapter::{Adapter, OTHER};
use super::part::Part;
use super::quantization::Quantization;
use super::tensor::Tensor;

/// Tensors that are not taken yet, and what is known of them.
pub struct Weights {
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) quantization: Quantization,
    pub(super) form: LoadOptions,
    /// Factor of an adapter's additions, if there is one.
    pub(super) adapter_scale: Option<f32>,
    /// Name parts that layers use, and those of the checkpoint in their place.
    pub(super) names: Vec<(String, String)>,
    /// Optional tensors that layers looked up, by name without layer numbers: one that exists, and
    /// one that does not.
    pub(super) optional: BTreeMap<String, [Option<String>; 2]>,
    pub(super) taken: Inventory,
    /// Matrix that a matrix was split from, by the name of the part.
    pub(super) wholes: BTreeMap<String, String>,
}

/// Record of what a model took from its checkpoint.
#[derive(Default)]
pub struct Inventory {
    /// Matrices by name, with their quantisation if they are quantised.
    pub matrices: BTreeMap<String, Option<QuantSpec>>,
    /// Tensors that were left for other uses.
    pub left: BTreeSet<String>,
    /// Tensors without use.
    pub discarded: BTreeSet<String>,
    /// Layers of which only some columns were taken.
    pub partial: BTreeSet<String>,
    /// Number of layers, if the model can be divided by layers.
    pub layers: Option<usize>,
    /// Bytes of the tensors that were taken.
    pub bytes: u64,
}

/// Message for a tensor that no layer takes.
const UNUSED: &str = "the model has no use for this tensor";

/// Options of loading a model.
#[derive(Clone, Copy)]
pub struct LoadOptions {
    /// Backend of the layers.
    pub ops: &'static dyn Ops,
    /// True to convert 16-bit floats that MLX computes with to float32, because MLX is slow with
    /// them on a CPU.
    pub widen: bool,
    /// True to read no tensors, for a model that will not run.
    pub sketch: bool,
    /// Part of the model to load; `None` for all.
    pub part: Option<Part>,
}

impl Weights {
    /// Tensors of a model, with the quantisation table of its config.json.
    pub fn new(
        tensors: BTreeMap<String, Tensor>,
        quantization: Quantization,
        form: LoadOptions,
    ) -> Weights {
        Weights {
            tensors,
            quantization,
            form,
            adapter_scale: None,
            names: Vec::new(),
            optional: BTreeMap::new(),
            taken: Inventory::default(),
            wholes: BTreeMap::new(),
        }
    }

    /// Adds the tensors of an adapter, or replaces those of the model. Errors if there is no tensor
    /// of that shape to replace.
    pub fn adapt(&mut self, adapter: Adapter) -> Result<()> {
        self.adapter_scale = adapter.scale;
        for (name, tensor) in adapter.tensors {
            let shape = self.tensors.get(&name).map(|old| old.shape.clone());
            if adapter.scale.is_none() && shape.as_ref() != Some(&tensor.shape) {
                let found = shape.map_or("none".to_owned(), |shape| format!("{shape:?}"));
                let message = format!("{OTHER}: {:?} takes the place of {found}", tensor.shape);
                return Err(invalid(&name, message));
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    /// Ends loading, and returns the inventory. Errors if tensors are left over, or if some layers
    /// have an optional tensor and others lack it.
    pub fn finish(self) -> Result<Inventory> {
        let uneven = |[there, absent]: &[Option<String>; 2]| there.clone().zip(absent.clone());
        if let Some((there, absent)) = self.optional.values().find_map(uneven) {
            return Err(invalid(&absent, format!("the tensor is missing; there is {there}")));
        }
        let Some(first) = self.tensors.keys().next() else {
            return Ok(self.taken);
        };
        let more = match self.tensors.len() {
            1 => String::new(),
            n => format!(" (and {} more: {})", n - 1, some(self.tensors.keys().skip(1))),
        };
        let added = [".lora_a", ".lora_b", ".m"].iter().any(|end| first.ends_with(end));
        let why = if added && self.adapter_scale.is_some() { OTHER } else { UNUSED };
        Err(invalid(first, format!("{why}{more}")))
    }
}

/// Error of kind [`Kind::InvalidModel`] about a tensor.
pub(super) fn invalid(tensor: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, tensor, message)
}

/// Error about a tensor that does not exist.
pub(super) fn missing(tensor: &str) -> Error {
    invalid(tensor, "the tensor is missing")
}

/// First three names, joined.
fn some<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.take(3).map(String::as_str).collect::<Vec<_>>().join(", ")
}
