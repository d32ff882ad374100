//! Architectures that can be imported: a row each, with names of tensors and fields of config.json.
//!
//! A row reverts what llama.cpp's `convert_hf_to_gguf.py` did to a checkpoint, and results in what
//! mlx-lm saves for it.

mod config;
mod decoders;
mod early;
mod gemma;
mod granite;
mod llama;
mod mixtures;
mod names;
mod qwen;
mod recurrent;
mod row;
mod transform;

pub use row::{Architecture, Place};
pub use transform::{Elementwise, Reshape, Transform};

use crate::read::Gguf;

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

/// Architectures that MLX has but that cannot be imported, each with the reason.
const NOT_IMPORTABLE: &[(&str, &str)] = &[(
    "bitnet",
    "it stands for models with SiLU in llama.cpp and with squared ReLU in MLX, and files do not say which",
)];

/// Architecture of a file.
///
/// # Errors
/// A phrase that lists the known architectures, or states why this one cannot be imported.
pub fn detect(gguf: &Gguf) -> Result<&'static Architecture, String> {
    let name: &str = gguf.need("general.architecture")?;
    let all = || FAMILIES.iter().copied().flatten();
    let fits =
        |architecture: &&Architecture| architecture.gguf == name && (architecture.matches)(gguf);
    all().find(fits).ok_or_else(|| {
        if let Some((_, why)) = NOT_IMPORTABLE.iter().find(|(other, _)| *other == name) {
            return format!("the architecture {name:?} cannot be imported: {why}");
        }
        let mut known: Vec<_> = all().map(|architecture| architecture.gguf).collect();
        known.sort_unstable();
        known.dedup();
        format!("the architecture {name:?} cannot be imported; these can: {}", known.join(", "))
    })
}
