//! Linear layers and embeddings.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::collective::all_sum;

use super::lora::Lora;
use super::matrix::Matrix;
use crate::checkpoint::cursor::Cursor;

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
