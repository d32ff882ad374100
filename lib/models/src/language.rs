//! Language models: vectors of tokens in, logits of the next token out.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Cache, Sequences};
use serde_json::Value;

use crate::checkpoint::cursor::Cursor;

/// A model of language, in the three steps that text, pictures and embeddings share.
pub trait Language {
    /// How many tokens it knows; ids are below this.
    fn vocabulary(&self) -> usize;
    /// A memory of one text, without any token.
    fn cache(&self) -> Cache;
    /// The vectors of `ids` [1, rows], as [1, rows, hidden].
    fn embed(&self, ids: &Array) -> Result<Array>;
    /// What the model makes of the next vectors of `sequences`, the rows of one text after those of
    /// another; same shape.
    fn forward(&self, h: &Array, sequences: &mut Sequences) -> Result<Array>;
    /// The logits [1, rows, vocabulary] of the token after each.
    fn head(&self, h: &Array) -> Result<Array>;
}

/// Makes a model from its config.json and its tensors.
pub type Load = fn(&Value, Cursor) -> mlxk_core::Result<Box<dyn Language>>;
