//! The models that can run: a file for each family, an entry for each `model_type`.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Architecture;
use serde_json::Value;

use crate::cache::Cache;
use crate::weights::Cursor;

mod config;
mod decoder;
mod llama;
mod qwen;
mod smollm;

pub use config::Config;

/// A model of language, in the three steps that text, pictures and embeddings share.
pub trait Language {
    /// How many tokens it knows; ids are below this.
    fn vocabulary(&self) -> usize;
    /// A memory without any token.
    fn cache(&self) -> Cache;
    /// The vectors of `ids` [1, length], as [1, length, hidden].
    fn embed(&self, ids: &Array) -> Result<Array>;
    /// What the model makes of vectors that follow those in `cache`; same shape.
    fn forward(&self, h: &Array, cache: &mut Cache) -> Result<Array>;
    /// The logits [1, length, vocabulary] of the token after each.
    fn head(&self, h: &Array) -> Result<Array>;
}

/// Makes a model from its config.json and its tensors.
pub type Load = fn(&Value, Cursor) -> mlxk_core::Result<Box<dyn Language>>;

/// How to load a model of `architecture`.
pub fn load(architecture: Architecture) -> Load {
    match architecture {
        Architecture::Llama => llama::load,
        Architecture::Mistral => llama::load_mistral,
        Architecture::Qwen2 => qwen::load_2,
        Architecture::Qwen3 => qwen::load_3,
        Architecture::SmolLm3 => smollm::load,
    }
}
