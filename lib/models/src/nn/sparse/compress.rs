//! What makes one row of every few tokens.

use mlx_rs::error::Result;
use mlx_rs::ops::{softmax_axis, zeros_dtype};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Cache, Kv, Sequences};
use mlxk_tensor::mlx;

use super::fake_quant::Grid;
use super::partial_rope::PartialRope;
use super::sizes::{CompressSizes, SparseSizes};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::norm::Norm;

/// The mean of the vectors of a row's tokens, weighted element by element.
pub struct Compressor {
    kv_proj: Linear,
    /// To the logarithms of weights, if a row is of more than one token.
    gate_proj: Option<Linear>,
    kv_norm: Norm,
    /// What makes the key of a row.
    key: Option<(Linear, Norm)>,
    /// A row turns by the position of its first token.
    turn: PartialRope,
    sizes: CompressSizes,
}

impl Compressor {
    /// The layer under `w`, of an attention of these sizes.
    pub fn load(
        w: &mut Cursor,
        sizes: &SparseSizes,
        own: &CompressSizes,
    ) -> mlxk_core::Result<Compressor> {
        let &SparseSizes { hidden, head_dim, norm, .. } = sizes;
        let key = |w: &mut Cursor, size| {
            let k_proj = Linear::load(w, "k_proj", size, head_dim)?;
            Ok((k_proj, norm.load(w, "k_norm", size)?))
        };
        let key = own.key.map(|size| key(&mut w.at("indexer"), size)).transpose()?;
        let w = &mut w.at("compressor");
        let gate = own.open.map(|_| Linear::load(w, "gate_proj", head_dim, hidden));
        let rope = sizes.rope.stretched(1.0 / own.ratio as f64)?;
        Ok(Compressor {
            kv_proj: Linear::load(w, "kv_proj", head_dim, hidden)?,
            gate_proj: gate.transpose()?,
            kv_norm: norm.load(w, "kv_norm", head_dim)?,
            key,
            turn: PartialRope { rope, rotated: sizes.rotated as i32 },
            sizes: *own,
        })
    }

    /// Adds to what is remembered of each text the rows that the tokens `x` [1, rows, hidden] complete.
    pub fn forward(&self, x: &Array, sequences: &mut Sequences) -> Result<()> {
        match (&self.gate_proj, self.sizes.open) {
            (Some(gate_proj), Some(open)) => {
                let wide = x.as_dtype(Dtype::Float32)?;
                let (kv, gate) = (self.kv_proj.forward(&wide)?, gate_proj.forward(&wide)?);
                sequences.each_sequence([&kv, &gate], |[kv, gate], cache| {
                    let rows = self.pool(kv, gate, cache.kv(open)?)?;
                    self.keep(rows, kv, x.dtype(), cache)
                })?;
            }
            _ => {
                let kv = self.kv_proj.forward(x)?;
                sequences.each_sequence([&kv], |[kv], cache| {
                    self.keep(Some(kv.clone()), kv, x.dtype(), cache)
                })?;
            }
        }
        Ok(())
    }

    /// The vectors [1, rows, head_dim] of the rows that new vectors and the logarithms of their weights
    /// [1, length, head_dim] complete, after those in `open`.
    fn pool(&self, kv: &Array, gate: &Array, open: &mut Kv) -> Result<Option<Array>> {
        let (length, ratio, size) = (kv.dim(1), self.sizes.ratio as i32, kv.dim(-1));
        let waiting = open.offset() % ratio;
        open.append(&kv.expand_dims(1)?, &gate.expand_dims(1)?)?;
        let rows = (waiting + length) / ratio;
        if rows == 0 {
            return Ok(None);
        }
        let [kv, gate] = open.seen(length)?;
        let first = kv.dim(2) - waiting - length;
        let tokens =
            |x: &Array| mlx::rows(x, first..first + rows * ratio)?.reshape(&[1, rows, ratio, size]);
        let shares = softmax_axis(tokens(&gate)?, 2, true)?;
        tokens(&kv)?.multiply(shares)?.sum_axis(2, false).map(Some)
    }

    /// Keeps the rows that `new` tokens [1, length, ..] have completed, if any, with their keys, as
    /// elements of `dtype`, that of the model's vectors.
    fn keep(
        &self,
        rows: Option<Array>,
        new: &Array,
        dtype: Dtype,
        cache: &mut Cache,
    ) -> Result<()> {
        let compressed = cache.compressed(self.sizes.rows)?;
        let first = compressed.held();
        let turned = |x: &Array| self.turn.apply(&x.expand_dims(1)?, first);
        let key_size = self.sizes.key.unwrap_or(1) as i32;
        let Some(rows) = rows else {
            let none = |size| zeros_dtype(&[1, 1, 0, size], dtype);
            return compressed.append(new.dim(1), &none(new.dim(-1))?, &none(key_size)?);
        };
        let rows = self.kv_norm.forward(&rows.as_dtype(dtype)?)?;
        let keys = match &self.key {
            Some((k_proj, k_norm)) => {
                Grid::FOUR.round(&turned(&k_norm.forward(&k_proj.forward(&rows)?)?)?)?
            }
            // Nobody chooses by these.
            None => zeros_dtype(&[1, 1, rows.dim(1), key_size], dtype)?,
        };
        let rows = Grid::FOUR_FINE.round(&turned(&rows)?)?;
        compressed.append(new.dim(1), &rows.as_dtype(dtype)?, &keys.as_dtype(dtype)?)
    }
}
