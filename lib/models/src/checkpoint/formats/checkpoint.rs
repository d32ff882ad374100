//! A model as its files have it, and changes to its names and tensors.

use std::collections::BTreeMap;

use mlx_rs::Dtype;
use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::floats;
use serde_json::Value;

use crate::checkpoint::reshape;
use crate::checkpoint::tensor::Tensor;

/// A model as files tell of it.
pub struct Checkpoint {
    /// config.json.
    pub config: Value,
    /// All tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// The part of config.json that is about text.
    pub fn text(&self) -> &Value {
        self.config.get("text_config").unwrap_or(&self.config)
    }

    /// A number that config.json states. Errors if it does not.
    pub fn number<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let value = self.text().get(key).cloned().unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|e| Error::new(Kind::InvalidModel, "config.json", format!("`{key}`: {e}")))
    }

    /// Drops the tensors whose names `unwanted` picks.
    pub fn remove(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unwanted(name));
    }

    /// Gives the tensors new names; those without one keep theirs.
    pub fn rename(&mut self, new: impl Fn(&str) -> Option<String>) {
        let all = std::mem::take(&mut self.tensors);
        let renamed = all.into_iter().map(|(name, tensor)| (new(&name).unwrap_or(name), tensor));
        self.tensors = renamed.collect();
    }

    /// Puts what `change` makes of the tensors whose names `wanted` picks in their places.
    pub fn change(&mut self, wanted: impl Fn(&str) -> bool, change: impl Fn(Tensor) -> Tensor) {
        for (_, tensor) in self.tensors.iter_mut().filter(|(name, _)| wanted(name)) {
            *tensor = change(tensor.clone());
        }
    }

    /// Makes `parts` of the rows of all matrices named `.{name}.weight`, which hold the parts one after
    /// another `repeats` times over; each part has as many of the rows as its number says.
    pub fn split(&mut self, name: &str, repeats: usize, parts: &[(&str, usize)]) -> Result<()> {
        let end = format!(".{name}.weight");
        let whole = |name: &String| Some((name.clone(), name.strip_suffix(&end)?.to_owned()));
        let of_each = parts.iter().fold(0_usize, |sum, (_, lots)| sum.saturating_add(*lots));
        let lots = of_each.saturating_mul(repeats);
        for (name, stem) in self.tensors.keys().filter_map(whole).collect::<Vec<_>>() {
            let tensor = self.take(&name)?;
            let lot = match *tensor.shape {
                [rows, _] if lots > 0 && rows % lots == 0 => rows / lots,
                _ => {
                    let message = format!("expected {lots} equal parts, found {:?}", tensor.shape);
                    return Err(invalid(&name, message));
                }
            };
            let mut first = 0;
            for (part, lots) in parts {
                let range = first..first + lots * lot;
                first = range.end;
                let rows = reshape::rows(&tensor, repeats, range);
                self.tensors.insert(format!("{stem}.{part}.weight"), rows);
            }
        }
        Ok(())
    }

    /// Takes a tensor. Errors if there is none.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| invalid(name, "the tensor is missing"))
    }

    /// Makes what config.json says about how the matrix `of` is quantised hold for `name` too.
    pub fn alias(&mut self, name: &str, of: &str) {
        for key in ["quantization", "quantization_config"] {
            if let Some(table) = self.config.get_mut(key).and_then(Value::as_object_mut)
                && let Some(entry) = table.get(of).cloned()
            {
                table.insert(name.to_owned(), entry);
            }
        }
    }
}

/// Error about `tensor`, which no model of its architecture has so.
pub fn invalid(tensor: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, tensor, message)
}

/// Whether a convolution is as it was in training.
pub fn trained(tensor: &Tensor) -> bool {
    matches!(tensor.shape.as_slice(), [_, 1, taps] if *taps > 1)
}

/// Whether the elements are numbers to compute with.
pub fn is_float(dtype: Dtype) -> bool {
    floats::kind(dtype).is_some()
}
