//! The layers that models are made of, named as the tensors of MLX checkpoints are.
//!
//! A layer is loaded from its place in the checkpoint, and what is there decides its form; running
//! it decides nothing. Shapes are [1, rows, size] unless said otherwise; rows are those of one text
//! or of several, one after another.

use mlx_rs::Array;
use mlx_rs::error::Result;

use crate::adapter::Lora;
use crate::distributed::all_sum;
use crate::matrix::Matrix;
use crate::weights::Cursor;

mod attention;
pub mod balance;
pub mod hyper;
mod latent;
mod mix;
mod mlp;
mod norm;

pub use attention::{Attention, Gate, Sharing, Sizes, Warmth};
pub use hyper::{Hyper, HyperSizes};
pub use latent::{Each, Latent, LatentSizes};
pub use mix::{Feed, Mix};
pub use mlp::{Mlp, MlpArch};
pub use norm::{Norm, NormArch, NormKind};

/// `x W.T + b`; the bias is there if the checkpoint has one.
pub struct Linear {
    weight: Matrix,
    bias: Option<Array>,
    lora: Option<Lora>,
    /// Whether other ranks have the rest of its columns.
    partial: bool,
}

impl Linear {
    /// The layer `name` of `w`, from `ins` to `outs` elements.
    pub fn load(w: &mut Cursor, name: &str, outs: usize, ins: usize) -> mlxk_core::Result<Linear> {
        let mut w = w.at(name);
        let bias = w.optional("bias", &[outs])?;
        let weight = Matrix::load(&mut w, outs, ins)?;
        let lora = Lora::load(&mut w, &weight, outs, ins)?;
        let partial = w.partial();
        Ok(Linear { weight, bias, lora, partial })
    }

    /// [.., ins] to [.., outs].
    pub fn forward(&self, x: &Array) -> Result<Array> {
        let y = self.weight.times(x)?;
        let y = match &self.lora {
            Some(lora) => lora.add(x, &y)?,
            None => y,
        };
        let y = match &self.bias {
            Some(bias) => y.add(bias)?,
            None => y,
        };
        if self.partial { all_sum(&y) } else { Ok(y) }
    }
}

/// A vector for each token.
pub struct Embedding {
    weight: Matrix,
}

impl Embedding {
    /// The layer `name` of `w`: `count` vectors of `size` elements.
    pub fn load(
        w: &mut Cursor,
        name: &str,
        count: usize,
        size: usize,
    ) -> mlxk_core::Result<Embedding> {
        Ok(Embedding { weight: Matrix::load(&mut w.at(name), count, size)? })
    }

    /// The vectors of `ids` [1, length].
    pub fn forward(&self, ids: &Array) -> Result<Array> {
        self.weight.rows(ids)
    }

    /// The products of `x` with all vectors: the head of a model whose embeddings are tied.
    pub fn as_linear(&self, x: &Array) -> Result<Array> {
        self.weight.times(x)
    }
}
