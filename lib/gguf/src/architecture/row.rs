//! The row of an architecture: its tensor names in GGUF and MLX, and the function that writes its
//! config.

use std::fmt;

use serde_json::Value;

use super::names;
use super::transform::{Name, Transform};
use crate::model::{Model, Traits};
use crate::read::Gguf;

/// Architecture that can be imported.
pub struct Architecture {
    /// Name in `general.architecture`, which is also the prefix of the metadata keys.
    pub gguf: &'static str,
    /// True if a file belongs to this row, where several rows have the same name.
    pub matches: fn(&Gguf) -> bool,
    /// Prefix of MLX's tensor names outside the layers.
    pub outer_prefix: &'static str,
    /// Prefix of MLX's tensor names in layers, up to the layer number.
    pub layer_prefix: &'static str,
    /// Tensors outside the layers.
    pub outer_names: &'static [&'static [Name]],
    /// Tensors in layers.
    pub layer_names: &'static [&'static [Name]],
    /// True if config.json has a field for heads that rotate only in part.
    pub partial_rotary: bool,
    /// True if the tensor of rope frequency factors holds those of Llama 3's scaling.
    pub llama3_factors: bool,
    /// Scalars that are metadata in GGUF and tensors in MLX.
    pub scalars: fn(&Model) -> Result<Scalars, String>,
    /// Function that makes the config.json.
    pub config: fn(&Model) -> Result<Value, String>,
}

/// Names and values of tensors with one element.
pub type Scalars = Vec<(String, f32)>;

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.gguf)
    }
}

/// Row that the others are based on; each sets its name, tensors and configuration.
pub const DEFAULT: Architecture = Architecture {
    gguf: "",
    matches: |_| true,
    outer_prefix: "",
    layer_prefix: "model.layers",
    outer_names: &[names::OUTER],
    layer_names: &[],
    partial_rotary: false,
    llama3_factors: true,
    scalars: |_| Ok(Vec::new()),
    config: |_| Err("no configuration".into()),
};

/// Destination of a GGUF tensor.
pub enum Place {
    /// Names of the MLX tensors that it becomes or is a part of, and the transform.
    Tensors(Vec<String>, Transform),
    /// Tensor that MLX does not need.
    Dropped,
}

impl Architecture {
    /// Traits that reading the metadata depends on.
    pub fn traits(&self) -> Traits {
        Traits {
            prefix: self.gguf,
            partial_rotary: self.partial_rotary,
            llama3_factors: self.llama3_factors,
        }
    }

    /// Destination of the tensor `name` in a model of `layers` layers, followed by `mtp_layers`
    /// multi-token prediction layers, which are dropped. `None` if the architecture has no such
    /// tensor.
    pub fn place(&self, name: &str, layers: usize, mtp_layers: usize) -> Option<Place> {
        if name.starts_with("rope_") {
            return Some(Place::Dropped);
        }
        let Some(rest) = name.strip_prefix("blk.") else {
            return found(self.outer_names, name, self.outer_prefix);
        };
        let (layer, rest) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        if layer >= layers + mtp_layers {
            return None;
        }
        if layer >= layers || rest.starts_with("rope_") {
            return Some(Place::Dropped);
        }
        found(self.layer_names, rest, &format!("{}.{layer}.", self.layer_prefix))
    }
}

/// Looks `name` up in `tables`, first as it is, then without its field (`.weight` or `.bias`).
fn found(tables: &[&[Name]], name: &str, prefix: &str) -> Option<Place> {
    let find = |key: &str| tables.iter().copied().flatten().find(|name| name.0 == key);
    let (Name(_, mlx, transform), field) = match find(name) {
        Some(name) => (name, String::new()),
        None => {
            let (key, field) = name.rsplit_once('.')?;
            let known = ["weight", "bias"].contains(&field);
            (find(key).filter(|_| known)?, format!(".{field}"))
        }
    };
    Some(match mlx.is_empty() {
        true => Place::Dropped,
        false => {
            let names = mlx.split('|').map(|part| format!("{prefix}{part}{field}"));
            Place::Tensors(names.collect(), *transform)
        }
    })
}
