//! The architectures that can be imported: what their tensors and dimensions are called in MLX.
//!
//! Each undoes what llama.cpp's `convert_hf_to_gguf.py` did, down to what mlx-lm saves.

mod decoders;
mod early;
mod gemma;
mod granite;
mod llama;
mod mixtures;
mod moves;
mod names;
mod qwen;
mod recurrent;

use std::fmt;

use serde_json::Value;

pub use moves::{How, Map, Name, Shape};

use crate::model::Model;
use crate::read::Gguf;

/// A name in `general.architecture`, and how its models are built.
pub struct Architecture {
    /// The name in GGUF, which is also the prefix of its metadata.
    pub gguf: &'static str,
    /// Whether it is this one, where MLX has several for a name.
    pub is: fn(&Gguf) -> bool,
    /// What the names before and after the layers begin with.
    pub root: &'static str,
    /// What the names of layers begin with, up to the number.
    pub layers: &'static str,
    /// The tensors before and after the layers.
    pub ends: &'static [&'static [Name]],
    /// The tensors of layers.
    pub names: &'static [&'static [Name]],
    /// True if config.json can say that only a part of each head rotates.
    pub partial: bool,
    /// True if factors of frequencies are those of Llama 3.
    pub factors: bool,
    /// Numbers that MLX has as tensors and GGUF as metadata.
    pub numbers: fn(&Model) -> Result<Numbers, String>,
    /// The config.json.
    pub config: fn(&Model) -> Result<Value, String>,
}

/// Tensors of one number each, by name.
pub type Numbers = Vec<(String, f32)>;

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.gguf)
    }
}

const FAMILIES: [&[Architecture]; 8] = [
    llama::ALL,
    qwen::ALL,
    gemma::ALL,
    decoders::ALL,
    mixtures::ALL,
    recurrent::ALL,
    granite::ALL,
    early::ALL,
];

/// Architectures that MLX has too, but which no file can become, each with the reason.
const OTHERWISE: &[(&str, &str)] = &[(
    "bitnet",
    "it stands for models with SiLU in llama.cpp and with squared ReLU in MLX, and files do not say which",
)];

/// The architecture of a file. The error is a phrase that lists those there are.
pub fn of(gguf: &Gguf) -> Result<&'static Architecture, String> {
    let name: &str = gguf.need("general.architecture")?;
    let all = || FAMILIES.iter().copied().flatten();
    let fits = |architecture: &&Architecture| architecture.gguf == name && (architecture.is)(gguf);
    all().find(fits).ok_or_else(|| {
        if let Some((_, why)) = OTHERWISE.iter().find(|(other, _)| *other == name) {
            return format!("the architecture {name:?} cannot be imported: {why}");
        }
        let mut known: Vec<_> = all().map(|architecture| architecture.gguf).collect();
        known.sort_unstable();
        known.dedup();
        format!("the architecture {name:?} cannot be imported; these can: {}", known.join(", "))
    })
}

/// Where a tensor goes.
pub enum Place {
    /// To tensors of these names, in this manner.
    To(Vec<String>, How),
    /// It has no use.
    Nowhere,
}

impl Architecture {
    /// Where the tensor `name` goes in a model of `layers` layers and `further` that predict further
    /// tokens, which MLX does not; none if the architecture does not know it.
    pub fn place(&self, name: &str, layers: usize, further: usize) -> Option<Place> {
        if name.starts_with("rope_") {
            return Some(Place::Nowhere);
        }
        let Some(rest) = name.strip_prefix("blk.") else {
            return found(self.ends, name, self.root);
        };
        let (layer, rest) = rest.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        if layer >= layers + further {
            return None;
        }
        if layer >= layers || rest.starts_with("rope_") {
            return Some(Place::Nowhere);
        }
        found(self.names, rest, &format!("{}.{layer}.", self.layers))
    }
}

fn found(tables: &[&[Name]], name: &str, prefix: &str) -> Option<Place> {
    let of = |key: &str| tables.iter().copied().flatten().find(|name| name.0 == key);
    let (Name(_, mlx, how), field) = match of(name) {
        Some(name) => (name, String::new()),
        None => {
            let (key, field) = name.rsplit_once('.')?;
            let known = ["weight", "bias"].contains(&field);
            (of(key).filter(|_| known)?, format!(".{field}"))
        }
    };
    Some(match mlx.is_empty() {
        true => Place::Nowhere,
        false => {
            let names = mlx.split('|').map(|part| format!("{prefix}{part}{field}"));
            Place::To(names.collect(), *how)
        }
    })
}

/// What most have; each says its name, its tensors and its configuration.
const USUAL: Architecture = Architecture {
    gguf: "",
    is: |_| true,
    root: "",
    layers: "model.layers",
    ends: &[names::ENDS],
    names: &[],
    partial: false,
    factors: true,
    numbers: |_| Ok(Vec::new()),
    config: |_| Err("no configuration".into()),
};
