//! Linear layers and embeddings.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::collective::all_sum;

use super::lora::Lora;
use super::matrix::Matrix;
use crate::checkpoint::cursor::Cursor;

/// Linear layer `x W.T + b`, with a bias if the checkpoint has one, and with the LoRA of an
/// adapter.
pub struct Linear {
    weight: Matrix,
    bias: Option<Array>,
    lora: Option<Lora>,
    /// True if other ranks have the other columns of the weight, so that outputs are summed over
    /// ranks.
    partial: bool,
}

impl Linear {
    /// Loads the layer `name` of `w`, from `ins` to `outs` elements.
    pub fn load(w: &mut Cursor, name: &str, outs: usize, ins: usize) -> mlxk_core::Result<Linear> {
        let mut w = w.at(name);
        let bias = w.optional("bias", &[outs])?;
        let weight = Matrix::load(&mut w, outs, ins)?;
        let lora = Lora::load(&mut w, &weight, outs, ins)?;
        let partial = w.partial();
        Ok(Linear { weight, bias, lora, partial })
    }

    /// Output [.., outs] for `x` [.., ins].
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

/// Token embedding.
pub struct Embedding {
    weight: Matrix,
}

impl Embedding {
    /// Loads the layer `name` of `w`: `count` vectors of `size` elements.
    pub fn load(
        w: &mut Cursor,
        name: &str,
        count: usize,
        size: usize,
    ) -> mlxk_core::Result<Embedding> {
        Ok(Embedding { weight: Matrix::load(&mut w.at(name), count, size)? })
    }

    /// Vectors [1, length, size] of `ids` [1, length].
    pub fn forward(&self, ids: &Array) -> Result<Array> {
        self.weight.rows(ids)
    }

    /// Products of `x` with all vectors, which is the head of a model with tied embeddings.
    pub fn as_linear(&self, x: &Array) -> Result<Array> {
        self.weight.times(x)
    }
}
