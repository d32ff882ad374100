//! The tensors of a checkpoint, each handed out once: what nobody asked for is an error.

use std::collections::{BTreeMap, BTreeSet};

use mlxk_core::quantization::QuantSpec;
use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::ops::Ops;

use super::adapter::{Adapter, OTHER};
use super::part::Part;
use super::quantization::Quantization;
use super::tensor::Tensor;

/// All tensors that are still to be taken.
pub struct Weights {
    pub(super) tensors: BTreeMap<String, Tensor>,
    pub(super) quantization: Quantization,
    pub(super) form: LoadOptions,
    /// What the additions of an adapter are multiplied with, if there is one.
    pub(super) adapter_scale: Option<f32>,
    /// Parts of names as the layers have them, and as the checkpoint does.
    pub(super) names: Vec<(String, String)>,
    /// The optional tensors that were asked for, numbers of layers left out: one that there is, and
    /// one that there is not.
    pub(super) optional: BTreeMap<String, [Option<String>; 2]>,
    pub(super) taken: Inventory,
    /// What the parts of a matrix that was split are parts of.
    pub(super) wholes: BTreeMap<String, String>,
}

/// What a model made of its tensors.
#[derive(Default)]
pub struct Inventory {
    /// The names of its matrices, and how those are packed that are.
    pub matrices: BTreeMap<String, Option<QuantSpec>>,
    /// The names of the tensors that it left aside, as they are of use elsewhere.
    pub left: BTreeSet<String>,
    /// The names of those that are of no use.
    pub discarded: BTreeSet<String>,
    /// The layers of which it took some columns only.
    pub partial: BTreeSet<String>,
    /// How many layers there are, if some of them can be taken alone.
    pub layers: Option<usize>,
    /// Bytes of the tensors that it took.
    pub bytes: u64,
}

/// What is wrong with a tensor that nobody asked for.
const UNUSED: &str = "the model has no use for this tensor";

/// What the layers are made for.
#[derive(Clone, Copy)]
pub struct LoadOptions {
    /// How they do their steps.
    pub ops: &'static dyn Ops,
    /// Whether to widen 16-bit floats that MLX computes with, which is slow with them on a CPU.
    pub widen: bool,
    /// Whether no tensor is read, as nothing will be computed.
    pub sketch: bool,
    /// What to take of the model, if not all.
    pub part: Option<Part>,
}

impl Weights {
    /// The tensors of a model and what its config.json says about their quantisation.
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

    /// Adds the tensors of an adapter, or puts them in the place of the model's. Errors if there
    /// are no such tensors to replace.
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

    /// Says that the model is complete; returns what it made of the tensors. Errors if some are there
    /// that it neither took nor left aside, or if some layers have an optional tensor and others do
    /// not.
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

pub(super) fn invalid(tensor: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, tensor, message)
}

pub(super) fn missing(tensor: &str) -> Error {
    invalid(tensor, "the tensor is missing")
}

fn some<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.take(3).map(String::as_str).collect::<Vec<_>>().join(", ")
}
