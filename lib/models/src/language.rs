//! Language models: vectors of tokens in, logits of the next token out.

use std::ops::Range;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::ops::{concatenate, zeros_dtype};
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;

/// A language model, in the three steps that text, pictures and embeddings share. Rows are those of
/// one sequence after those of another.
pub trait Language {
    /// Number of tokens that the model knows; ids are below this.
    fn vocabulary(&self) -> usize;

    /// Cache of one sequence, without any token.
    fn cache(&self) -> Cache;

    /// Vectors of the tokens `ids` [1, rows], with features of other senses in the place of those of
    /// the rows that `spliced` names.
    fn embed(&self, ids: &Array, spliced: &[Spliced]) -> Result<Inputs>;

    /// Hidden states [1, rows, hidden] of the next rows of `sequences`.
    fn forward(&self, inputs: Inputs, sequences: &mut Sequences) -> Result<Array>;

    /// Hidden states [1, rows, hidden] after the final norm, of which embeddings are made, for those of
    /// the last layer. Errors if the network does not offer them.
    fn states(&self, _h: &Array) -> Result<Array> {
        Err(Exception::custom("models of this architecture write text, and embed none"))
    }

    /// Logits [1, rows, vocabulary] of the token after each row of `h` [1, rows, hidden].
    fn head(&self, h: &Array) -> Result<Array>;
}

/// Vectors that enter the first layer, and what later layers take beside them.
pub struct Inputs {
    /// Vectors [1, rows, hidden].
    pub h: Array,
    /// Side inputs of layers [1, rows, ..], in networks whose layers have inputs of their own.
    pub side: Option<Array>,
    /// Features that layers add to the rows of pictures.
    pub deep: Vec<Spliced>,
}

/// Features of a picture or of sound in the place of the embeddings of placeholder tokens.
#[derive(Clone)]
pub struct Spliced {
    /// Rows of the placeholder tokens.
    pub rows: Range<i32>,
    /// Features [rows, hidden].
    pub features: Array,
    /// Features [rows, hidden] that are added after the first layer, after the second and so on (arXiv
    /// 2406.04334).
    pub deep: Vec<Array>,
}

impl From<Array> for Inputs {
    fn from(h: Array) -> Inputs {
        Inputs { h, side: None, deep: Vec::new() }
    }
}

/// `h` [1, rows, hidden] with the features of `spliced`, whose rows ascend, in their places.
pub fn splice(h: Array, spliced: &[Spliced]) -> Result<Array> {
    let features = |spliced: &Spliced| spliced.features.expand_dims(0)?.as_dtype(h.dtype());
    let features: Vec<Array> = spliced.iter().map(features).collect::<Result<_>>()?;
    replaced(h, spliced, features)
}

/// `h` [1, rows, hidden], the output of layer number `layer`, with the deep features of that layer
/// added to their rows.
pub fn deepened(h: Array, deep: &[Spliced], layer: usize) -> Result<Array> {
    let own: Vec<Spliced> = deep.iter().filter(|own| own.deep.len() > layer).cloned().collect();
    let sum = |own: &Spliced| {
        let added = own.deep[layer].expand_dims(0)?.as_dtype(h.dtype())?;
        mlx::columns(&h, own.rows.clone())?.add(added)
    };
    let sums: Vec<Array> = own.iter().map(sum).collect::<Result<_>>()?;
    replaced(h, &own, sums)
}

/// `ids` [1, rows] with token 0 in the rows of `spliced`, which are no text.
pub fn text_ids(ids: &Array, spliced: &[Spliced]) -> Result<Array> {
    let zeros = |spliced: &Spliced| zeros_dtype(&[1, spliced.rows.len() as i32], ids.dtype());
    let zeros: Vec<Array> = spliced.iter().map(zeros).collect::<Result<_>>()?;
    replaced(ids.clone(), spliced, zeros)
}

fn replaced(x: Array, spliced: &[Spliced], rows: Vec<Array>) -> Result<Array> {
    if spliced.is_empty() {
        return Ok(x);
    }
    let mut parts = Vec::new();
    let mut first = 0;
    for (spliced, rows) in spliced.iter().zip(rows) {
        if first < spliced.rows.start {
            parts.push(mlx::columns(&x, first..spliced.rows.start)?);
        }
        parts.push(rows);
        first = spliced.rows.end;
    }
    if first < x.dim(1) {
        parts.push(mlx::columns(&x, first..x.dim(1))?);
    }
    // The CPU's operations read elements where they lie, row after row.
    concatenate(&parts, 1)?.contiguous()
}
