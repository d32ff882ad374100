//! Hyper-connections (arXiv 2409.19606): several streams in the place of one, which a part of a layer
//! reads, writes and mixes by factors that it makes of them. What mixes them is balanced
//! (arXiv 2512.24880).

use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, ones_dtype, sigmoid, softmax_axis, split_at_indices, zeros_dtype};
use mlx_rs::{Array, Dtype};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;

use super::norm::{Norm, NormArch, NormKind};
use crate::checkpoint::cursor::Cursor;

/// What the weights of the connections do not show.
#[derive(Clone, Copy, Debug)]
pub struct HyperConnectionSizes {
    /// Elements of a stream's vectors.
    pub hidden: usize,
    /// Streams.
    pub streams: usize,
    /// Rounds in which what mixes them is balanced.
    pub rounds: usize,
    /// What is added to factors, and to sums that are divided by.
    pub eps: f32,
    /// What is added to the mean square.
    pub norm_eps: f32,
}

/// How a part of a layer is connected to the streams.
pub struct HyperConnections {
    /// [streams * hidden, factors]: those to read and to write by, and those to mix by.
    weight: Array,
    /// [factors].
    scale: Array,
    base: Array,
    norm: Norm,
    sizes: HyperConnectionSizes,
    ops: &'static dyn Ops,
}

/// The factors of a part of a layer, of single precision.
pub struct Links {
    /// How much of each stream the next part reads, [1, rows, streams].
    pub read: Array,
    /// How much of what this part puts out each stream takes, [1, rows, streams].
    write: Array,
    /// How much of each stream (row) each takes over (column), [1, rows, streams, streams].
    mix: Array,
}

impl HyperConnections {
    /// The connections at `w`.
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

    /// The factors that `streams` [1, rows, streams, hidden] make.
    pub fn links(&self, streams: &Array) -> Result<Links> {
        let HyperConnectionSizes { rounds, eps, .. } = self.sizes;
        let (rows, n) = (streams.dim(1), streams.dim(2));
        let flat = streams.as_dtype(Dtype::Float32)?.reshape(&[1, rows, -1])?;
        let factors = self.norm.forward(&flat)?.matmul(&self.weight)?;
        let factors = factors.multiply(&self.scale)?.add(&self.base)?;
        let parts = split_at_indices(&factors, &[n, 2 * n], -1)?;
        let more = Array::from_f32(eps);
        let mix = softmax_axis(parts[2].reshape(&[1, rows, n, n])?, -1, true)?.add(&more)?;
        Ok(Links {
            read: sigmoid(&parts[0])?.add(more)?,
            write: sigmoid(&parts[1])?.multiply(Array::from_f32(2.0))?,
            mix: self.ops.sinkhorn(&mix, rounds, eps)?,
        })
    }
}

/// Each of three numbers as often as its count says.
fn each(three: &Array, counts: [usize; 3]) -> Result<Array> {
    let times = |(i, count): (usize, usize)| {
        let own = mlx::entries(three, i as i32..i as i32 + 1)?;
        own.multiply(ones_dtype(&[count as i32], Dtype::Float32)?)
    };
    let parts: Vec<Array> = counts.into_iter().enumerate().map(times).collect::<Result<_>>()?;
    concatenate(&parts, 0)
}

impl Links {
    /// The streams [1, rows, streams, hidden] mixed, each with its part of `x` [1, rows, hidden].
    pub fn write(&self, streams: &Array, x: &Array) -> Result<Array> {
        let mixed = self.mix.swap_axes(-1, -2)?.matmul(streams.as_dtype(Dtype::Float32)?)?;
        let new = self.write.expand_dims(-1)?.multiply(x.expand_dims(2)?)?;
        mixed.add(new)?.as_dtype(streams.dtype())
    }
}

/// `h` [1, rows, hidden] in `count` streams, [1, rows, streams, hidden], and the factors that read the
/// first of them.
pub fn open(h: &Array, count: usize) -> Result<(Array, Array)> {
    let (rows, others) = (h.dim(1), count as i32 - 1);
    let streams = concatenate(&vec![h.expand_dims(2)?; count], 2)?;
    let first = ones_dtype(&[1, rows, 1], Dtype::Float32)?;
    let read = concatenate(&[first, zeros_dtype(&[1, rows, others], Dtype::Float32)?], -1)?;
    Ok((streams, read))
}

/// What factors [1, rows, streams] read of `streams`: [1, rows, hidden].
pub fn read(streams: &Array, factors: &Array) -> Result<Array> {
    let each = factors.expand_dims(-1)?.multiply(streams.as_dtype(Dtype::Float32)?)?;
    each.sum_axis(2, false)?.as_dtype(streams.dtype())
}
