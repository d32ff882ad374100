//! Manifold-constrained hyper-connections (arXiv 2409.19606, arXiv 2512.24880): several residual
//! streams, which a sublayer reads, writes and mixes by weights computed from them; the mixing
//! matrix is made doubly stochastic by Sinkhorn normalisation.

use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, ones_dtype, sigmoid, softmax_axis, split_at_indices, zeros_dtype};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;

use super::norm::{Norm, NormArch, NormKind};
use crate::checkpoint::cursor::Cursor;

/// Parameters of hyper-connections that their weights do not show.
#[derive(Clone, Copy, Debug)]
pub struct HyperConnectionSizes {
    /// Elements of a stream's vector.
    pub hidden: usize,
    /// Residual streams.
    pub streams: usize,
    /// Rounds of Sinkhorn normalisation.
    pub rounds: usize,
    /// Epsilon of weights and of the sums of Sinkhorn normalisation.
    pub eps: f32,
    /// Epsilon of the norm, added to the mean square.
    pub norm_eps: f32,
}

/// Hyper-connections of a sublayer.
pub struct HyperConnections {
    /// Projection of the streams [streams * hidden, weights], where weights are those to read, to
    /// write and to mix by.
    weight: Array,
    /// Factor of each weight, `[weights]`.
    scale: Array,
    base: Array,
    norm: Norm,
    sizes: HyperConnectionSizes,
    ops: &'static dyn Ops,
}

/// Weights of a sublayer's connections for each row, float32.
pub struct ConnectionWeights {
    /// Weight of each stream in the input of the sublayer, [1, rows, streams].
    pub read: Array,
    /// Weight of the sublayer's output in each stream, [1, rows, streams].
    write: Array,
    /// Weight of each stream (row) in each new stream (column), [1, rows, streams, streams].
    mix: Array,
}

impl HyperConnections {
    /// Loads the tensors at `w`.
    pub fn load(
        w: &mut Cursor,
        sizes: HyperConnectionSizes,
    ) -> mlxk_core::Result<HyperConnections> {
        let HyperConnectionSizes { hidden, streams, norm_eps, .. } = sizes;
        let counts = [streams, streams, streams * streams];
        let factors = counts.iter().sum();
        let bare = NormArch { kind: NormKind::Bare, eps: norm_eps };
        let mut single = |name, shape: &[usize]| {
            w.floats(name, shape)?.as_dtype(Dtype::Float32).map_err(mlx::failed)
        };
        let weight = single("fn", &[factors, streams * hidden])?;
        let scale = each(&single("scale", &[3])?, counts).map_err(mlx::failed)?;
        Ok(HyperConnections {
            weight: weight.transpose().map_err(mlx::failed)?,
            scale,
            base: single("base", &[factors])?,
            norm: bare.load(w, "norm", streams * hidden)?,
            sizes,
            ops: w.ops(),
        })
    }

    /// Connection weights computed from `streams` [1, rows, streams, hidden].
    pub fn weights(&self, streams: &Array) -> Result<ConnectionWeights> {
        let HyperConnectionSizes { rounds, eps, .. } = self.sizes;
        let (rows, n) = (streams.dim(1), streams.dim(2));
        let flat = streams.as_dtype(Dtype::Float32)?.reshape(&[1, rows, -1])?;
        let factors = self.norm.forward(&flat)?.matmul(&self.weight)?;
        let factors = factors.multiply(&self.scale)?.add(&self.base)?;
        let parts = split_at_indices(&factors, &[n, 2 * n], -1)?;
        let more = Array::from_f32(eps);
        let mix = softmax_axis(parts[2].reshape(&[1, rows, n, n])?, -1, true)?.add(&more)?;
        Ok(ConnectionWeights {
            read: sigmoid(&parts[0])?.add(more)?,
            write: sigmoid(&parts[1])?.multiply(Array::from_f32(2.0))?,
            mix: self.ops.sinkhorn(&mix, rounds, eps)?,
        })
    }
}

/// Three numbers, each repeated by its count.
fn each(three: &Array, counts: [usize; 3]) -> Result<Array> {
    let times = |(i, count): (usize, usize)| {
        let own = mlx::entries(three, i as i32..i as i32 + 1)?;
        own.multiply(ones_dtype(&[count as i32], Dtype::Float32)?)
    };
    let parts: Vec<Array> = counts.into_iter().enumerate().map(times).collect::<Result<_>>()?;
    concatenate(&parts, 0)
}

impl ConnectionWeights {
    /// Streams [1, rows, streams, hidden] after the sublayer: mixed, plus the weighted output `x`
    /// [1, rows, hidden].
    pub fn write(&self, streams: &Array, x: &Array) -> Result<Array> {
        let mixed = self.mix.swap_axes(-1, -2)?.matmul(streams.as_dtype(Dtype::Float32)?)?;
        let new = self.write.expand_dims(-1)?.multiply(x.expand_dims(2)?)?;
        mixed.add(new)?.as_dtype(streams.dtype())
    }
}

/// Streams [1, rows, streams, hidden] that are copies of `h` [1, rows, hidden], and weights that
/// read the first of them.
pub fn expand(h: &Array, count: usize) -> Result<(Array, Array)> {
    let (rows, others) = (h.dim(1), count as i32 - 1);
    let streams = concatenate(&vec![h.expand_dims(2)?; count], 2)?;
    let first = ones_dtype(&[1, rows, 1], Dtype::Float32)?;
    let read = concatenate(&[first, zeros_dtype(&[1, rows, others], Dtype::Float32)?], -1)?;
    Ok((streams, read))
}

/// Input of a sublayer [1, rows, hidden]: the sum of `streams` weighted by `factors` [1, rows,
/// streams].
pub fn read(streams: &Array, factors: &Array) -> Result<Array> {
    let each = factors.expand_dims(-1)?.multiply(streams.as_dtype(Dtype::Float32)?)?;
    each.sum_axis(2, false)?.as_dtype(streams.dtype())
}
