//! Quantisation table of config.json: which matrices are quantised, and how.
//!
//! The format is mlx-lm's: `"quantization": {"group_size": 64, "bits": 4, "mode": "affine"}`, and
//! in that object, under the name of a matrix, an object of the same kind, `true` or `false`.

use std::collections::HashMap;

use mlxk_core::quantization::{self, Mode};
use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::Value;

/// Quantisation table; empty if the model is not quantised.
#[derive(Debug, Default)]
pub struct Quantization {
    named: HashMap<String, Entry>,
}

/// Entry of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The matrix is dense.
    Dense,
    /// The matrix is quantised; what is not stated follows from its tensors.
    Quantized(Stated),
}

/// Quantisation that the table states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// Weights that share a scale.
    pub group_size: Option<usize>,
    /// Bits of a weight.
    pub bits: Option<usize>,
    /// Quantisation mode.
    pub mode: Option<Mode>,
}

#[derive(Deserialize)]
struct Fields {
    group_size: Option<usize>,
    bits: Option<usize>,
    mode: Option<String>,
}

impl Quantization {
    /// Reads the table of `config`. Errors name a form that is not known.
    pub fn read(config: &Value) -> Result<Quantization> {
        let absent = |value: &&Value| !value.is_null();
        let copy = config.get("quantization_config").filter(absent);
        let Some(table) = config.get("quantization").filter(absent).or(copy) else {
            return Ok(Quantization::default());
        };
        match table.get("quant_method").and_then(Value::as_str) {
            // The tensors of these formats are self-describing.
            Some(method) if method == "bitnet" || quantization::EQUIVALENT.contains(&method) => {
                return Ok(Quantization::default());
            }
            Some(method) => {
                return Err(unsupported(format!("is quantised by `{method}`, not by MLX")));
            }
            None => {}
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

    /// Copies the entry of `whole` to its part `part`.
    pub fn alias(&mut self, part: String, whole: &str) {
        if let Some(entry) = self.of(whole) {
            self.named.insert(part, entry);
        }
    }

    /// Entry of the matrix that is called `name` on disk; `None` if its tensors decide.
    pub fn of(&self, name: &str) -> Option<Entry> {
        self.named.get(name).copied()
    }
}

/// Reads an entry of the table.
fn entry(name: &str, value: &Value) -> Result<Entry> {
    match value {
        Value::Bool(false) => return Ok(Entry::Dense),
        Value::Bool(true) => return Ok(Entry::Quantized(Stated::default())),
        _ => {}
    }
    let Fields { group_size, bits, mode } = Fields::deserialize(value)
        .map_err(|e| unsupported(format!("states `{name}` in a form that is not known: {e}")))?;
    let unknown = |mode: &String| unsupported(format!("is quantised in mode `{mode}`"));
    let mode = match &mode {
        Some(mode) => Some(Mode::find(mode).ok_or_else(|| unknown(mode))?),
        None => None,
    };
    Ok(Entry::Quantized(Stated { group_size, bits, mode }))
}

/// Error of kind [`Kind::RuntimeIncompatible`] with the supported modes as hint.
fn unsupported(what: String) -> Error {
    let modes = Mode::ALL.map(Mode::name).join(", ");
    Error::new(Kind::RuntimeIncompatible, "config.json", what)
        .hint(format!("the modes that can run are {modes}"))
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
                "model.embed_tokens": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
                "lm_head": false, "model.layers.0.mlp.up_proj": true}}"#,
        )
        .unwrap();
        let mode = Some(Mode::Mxfp8);
        let eight = Stated { group_size: Some(32), bits: Some(8), mode };
        assert_eq!(table.of("model.embed_tokens"), Some(Entry::Quantized(eight)));
        assert_eq!(table.of("lm_head"), Some(Entry::Dense));
        let unstated = Entry::Quantized(Stated::default());
        assert_eq!(table.of("model.layers.0.mlp.up_proj"), Some(unstated));
        assert_eq!(table.of("model.layers.1.mlp.up_proj"), None);
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        for (config, name) in [
            (r#"{"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp3"}}"#, "mxfp3"),
            (r#"{"quantization": {"lm_head": {"mode": "q4"}}}"#, "q4"),
            (r#"{"quantization_config": {"quant_method": "aqlm", "bits": 4}}"#, "aqlm"),
        ] {
            assert!(read(config).unwrap_err().to_string().contains(name));
        }
    }
}
