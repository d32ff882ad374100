//! Checkpoint as stored, and changes to its names and tensors.

use std::collections::BTreeMap;

use mlx_rs::Dtype;
use mlxk_core::{Error, Kind, Result};
use mlxk_tensor::floats;
use serde_json::Value;

use crate::checkpoint::reshape;
use crate::checkpoint::tensor::Tensor;

/// Configuration and tensors of a model.
pub struct Checkpoint {
    /// config.json.
    pub config: Value,
    /// All tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Configuration of the language model: `text_config`, or else config.json itself.
    pub fn text(&self) -> &Value {
        self.config.get("text_config").unwrap_or(&self.config)
    }

    /// Field `key` of the language model's configuration. Errors if it is absent or malformed.
    pub fn number<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let value = self.text().get(key).cloned().unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|e| Error::new(Kind::InvalidModel, "config.json", format!("`{key}`: {e}")))
    }

    /// Removes the tensors for whose names `unwanted` returns true.
    pub fn remove(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unwanted(name));
    }

    /// Renames the tensors for whose names `new` returns a name.
    pub fn rename(&mut self, new: impl Fn(&str) -> Option<String>) {
        let all = std::mem::take(&mut self.tensors);
        let renamed = all.into_iter().map(|(name, tensor)| (new(&name).unwrap_or(name), tensor));
        self.tensors = renamed.collect();
    }

    /// Replaces each tensor for whose name `wanted` returns true by the result of `change`.
    pub fn change(&mut self, wanted: impl Fn(&str) -> bool, change: impl Fn(Tensor) -> Tensor) {
        for (_, tensor) in self.tensors.iter_mut().filter(|(name, _)| wanted(name)) {
            *tensor = change(tensor.clone());
        }
    }

    /// Splits the rows of all matrices named `.{name}.weight` into `parts`, each with a name and
    /// its share of the rows. The parts alternate `repeats` times in the matrix.
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

    /// Removes and returns a tensor. Errors if there is none.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        self.tensors.remove(name).ok_or_else(|| invalid(name, "the tensor is missing"))
    }

    /// Copies the quantisation of the matrix `of` in config.json to the matrix `name`.
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

/// Error that `tensor` does not fit its architecture.
pub fn invalid(tensor: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidModel, tensor, message)
}

/// True if a convolution is in training form [channels, 1, taps].
pub fn trained(tensor: &Tensor) -> bool {
    matches!(tensor.shape.as_slice(), [_, 1, taps] if *taps > 1)
}

/// True if the elements are floats.
pub fn is_float(dtype: Dtype) -> bool {
    floats::kind(dtype).is_some()
}
