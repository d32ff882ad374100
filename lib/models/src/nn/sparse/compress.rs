//! Compressor of sparse attention: pools consecutive tokens to rows.

use mlx_rs::error::Result;
use mlx_rs::ops::{softmax_axis, zeros_dtype};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::cache::{Cache, Kv, Sequences};
use mlxk_tensor::mlx;

use super::fake_quant::FakeQuant;
use super::partial_rope::PartialRope;
use super::sizes::{CompressSizes, SparseSizes};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::norm::Norm;

/// Pooling of the tokens of a row: a mean weighted by softmax for each element.
pub struct Compressor {
    kv_proj: Linear,
    /// Projection to the logits of weights; `None` if a row is one token.
    gate_proj: Option<Linear>,
    kv_norm: Norm,
    /// Projection and norm of a row's index key.
    key: Option<(Linear, Norm)>,
    /// Rotary position embedding of rows, by the position of the first token.
    rope: PartialRope,
    sizes: CompressSizes,
}

impl Compressor {
    /// Loads the compressor and the key projection of the attention layer at `w`.
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
            rope: PartialRope { rope, rotated: sizes.rotated as i32 },
            sizes: *own,
        })
    }

    /// Appends to each sequence's cache the rows that the tokens `x` [1, rows, hidden] complete.
    pub fn forward(&self, x: &Array, sequences: &mut Sequences) -> Result<()> {
        match (&self.gate_proj, self.sizes.open) {
            (Some(gate_proj), Some(open)) => {
                let wide = x.as_dtype(Dtype::Float32)?;
                let (kv, gate) = (self.kv_proj.forward(&wide)?, gate_proj.forward(&wide)?);
                sequences.each_sequence([&kv, &gate], |[kv, gate], cache| {
                    let rows = self.pool(kv, gate, cache.kv(open)?)?;
                    self.append(rows, kv, x.dtype(), cache)
                })?;
            }
            _ => {
                let kv = self.kv_proj.forward(x)?;
                sequences.each_sequence([&kv], |[kv], cache| {
                    self.append(Some(kv.clone()), kv, x.dtype(), cache)
                })?;
            }
        }
        Ok(())
    }

    /// Rows [1, rows, head_dim] that are completed by new vectors `kv` and logits `gate` [1,
    /// length, head_dim] after those in the cache slot `open`; `None` if there are none.
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
        let weights = softmax_axis(tokens(&gate)?, 2, true)?;
        tokens(&kv)?.multiply(weights)?.sum_axis(2, false).map(Some)
    }

    /// Appends completed rows, normed and rotated, with their index keys, as `dtype`. `new` are the
    /// new tokens [1, length, ..], which the cache counts.
    fn append(
        &self,
        rows: Option<Array>,
        new: &Array,
        dtype: Dtype,
        cache: &mut Cache,
    ) -> Result<()> {
        let compressed = cache.compressed(self.sizes.rows)?;
        let first = compressed.held();
        let rotated = |x: &Array| self.rope.apply(&x.expand_dims(1)?, first);
        let key_size = self.sizes.key.unwrap_or(1) as i32;
        let Some(rows) = rows else {
            let none = |size| zeros_dtype(&[1, 1, 0, size], dtype);
            return compressed.append(new.dim(1), &none(new.dim(-1))?, &none(key_size)?);
        };
        let rows = self.kv_norm.forward(&rows.as_dtype(dtype)?)?;
        let keys = match &self.key {
            Some((k_proj, k_norm)) => {
                FakeQuant::MXFP4.round(&rotated(&k_norm.forward(&k_proj.forward(&rows)?)?)?)?
            }
            // No indexer compares these rows.
            None => zeros_dtype(&[1, 1, rows.dim(1), key_size], dtype)?,
        };
        let rows = FakeQuant::NVFP4.round(&rotated(&rows)?)?;
        compressed.append(new.dim(1), &rows.as_dtype(dtype)?, &keys.as_dtype(dtype)?)
    }
}
