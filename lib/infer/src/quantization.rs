//! What config.json says about which matrices are quantised, and how.
//!
//! The form is mlx-lm's: `"quantization": {"group_size": 64, "bits": 4, "mode": "affine"}`, and in
//! the same object, under the name of a matrix, its own such object, `true` or `false`.

use std::collections::HashMap;

use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::Value;

/// The table of a model; empty if the model is not quantised.
#[derive(Debug, Default)]
pub struct Quantization {
    named: HashMap<String, Entry>,
}

/// What the table says about a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is dense.
    Dense,
    /// It is quantised; what is not stated the tensors show.
    Quantized {
        /// Weights that share a scale.
        group_size: Option<usize>,
        /// Bits of a weight.
        bits: Option<usize>,
    },
}

#[derive(Deserialize)]
struct Stated {
    group_size: Option<usize>,
    bits: Option<usize>,
    mode: Option<String>,
}

impl Quantization {
    /// Reads the table of `config`. Errors name the forms that are not MLX's affine one.
    pub fn read(config: &Value) -> Result<Quantization> {
        let absent = |value: &&Value| !value.is_null();
        let foreign = config.get("quantization_config").filter(absent);
        let Some(table) = config.get("quantization").filter(absent).or(foreign) else {
            return Ok(Quantization::default());
        };
        if let Some(method) = table.get("quant_method").and_then(Value::as_str) {
            return Err(unsupported(format!("is quantised by `{method}`, not by MLX")));
        }
        let Some(table) = table.as_object() else {
            return Err(unsupported("has a `quantization` that is not an object".into()));
        };
        entry("quantization", &table.clone().into())?;
        let mut named = HashMap::new();
        for (name, value) in
            table.iter().filter(|(_, value)| value.is_object() || value.is_boolean())
        {
            named.insert(name.clone(), entry(name, value)?);
        }
        Ok(Quantization { named })
    }

    /// What is said about the matrix that is called `name` on disk; `None` leaves it to the tensors.
    pub fn of(&self, name: &str) -> Option<Entry> {
        self.named.get(name).copied()
    }
}

fn entry(name: &str, value: &Value) -> Result<Entry> {
    match value {
        Value::Bool(false) => return Ok(Entry::Dense),
        Value::Bool(true) => {
            return Ok(Entry::Quantized { group_size: None, bits: None });
        }
        _ => {}
    }
    let stated = Stated::deserialize(value)
        .map_err(|e| unsupported(format!("states `{name}` in a form that is not known: {e}")))?;
    match stated.mode.as_deref() {
        None | Some("affine") => {
            Ok(Entry::Quantized { group_size: stated.group_size, bits: stated.bits })
        }
        Some(mode) => Err(unsupported(format!("is quantised in mode `{mode}`"))),
    }
}

fn unsupported(what: String) -> Error {
    Error::new(Kind::RuntimeIncompatible, "config.json", what)
        .hint("affine quantisation of 2 to 8 bits can run")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    fn read(json: &str) -> Result<Quantization> {
        Quantization::read(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn entries_are_found_by_the_name_on_disk() {
        let table = read(
            r#"{"quantization": {"group_size": 64, "bits": 4,
                "model.embed_tokens": {"group_size": 32, "bits": 8, "mode": "affine"},
                "lm_head": false, "model.layers.0.mlp.up_proj": true}}"#,
        )
        .unwrap();
        let eight = Entry::Quantized { group_size: Some(32), bits: Some(8) };
        assert_eq!(table.of("model.embed_tokens"), Some(eight));
        assert_eq!(table.of("lm_head"), Some(Entry::Dense));
        let unstated = Entry::Quantized { group_size: None, bits: None };
        assert_eq!(table.of("model.layers.0.mlp.up_proj"), Some(unstated));
        assert_eq!(table.of("model.layers.1.mlp.up_proj"), None);
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        for (config, name) in [
            (r#"{"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}"#, "mxfp4"),
            (r#"{"quantization": {"lm_head": {"mode": "nvfp4"}}}"#, "nvfp4"),
            (r#"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#, "gptq"),
        ] {
            assert!(read(config).unwrap_err().to_string().contains(name));
        }
    }
}
