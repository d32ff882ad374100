//! Low-rank additions to the matrices of a model (LoRA, arXiv 2106.09685), which DoRA
//! (arXiv 2402.09353) brings to stored lengths.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;

use super::matrix::Matrix;
use crate::checkpoint::cursor::Cursor;

/// An addition to a matrix [outs, ins], in two factors.
pub struct Lora {
    /// [ins, rank].
    a: Array,
    /// [rank, outs].
    b: Array,
    scale: f32,
    /// What the products are multiplied with, [outs], if lengths are stored.
    stretch: Option<Array>,
}

impl Lora {
    /// The addition at `w` to the matrix there, if there is one.
    pub fn load(
        w: &mut Cursor,
        matrix: &Matrix,
        outs: usize,
        ins: usize,
    ) -> mlxk_core::Result<Option<Lora>> {
        let Some(scale) = w.adapter_scale().filter(|_| w.has("lora_a")) else { return Ok(None) };
        let (shape, _) = w.form("lora_a")?;
        let rank = shape.last().copied().unwrap_or_default();
        let a = w.floats("lora_a", &[ins, rank])?;
        let b = w.floats("lora_b", &[rank, outs])?;
        let lengths = w.has("m").then(|| w.floats("m", &[outs])).transpose()?;
        let stretch = lengths.map(|lengths| stretch(matrix, &a, &b, scale, &lengths, outs));
        let stretch = stretch.transpose().map_err(mlx::failed)?;
        Ok(Some(Lora { a, b, scale, stretch }))
    }

    /// What the products `y` [.., outs] of the matrix with `x` [.., ins] become.
    pub fn add(&self, x: &Array, y: &Array) -> Result<Array> {
        let z = x.matmul(&self.a)?.matmul(&self.b)?.multiply(Array::from_f32(self.scale))?;
        let y = y.add(z.as_dtype(x.dtype())?)?;
        match &self.stretch {
            Some(stretch) => y.multiply(stretch)?.as_dtype(x.dtype()),
            None => Ok(y),
        }
    }
}

/// The stored lengths over those of the rows of the sum.
fn stretch(
    matrix: &Matrix,
    a: &Array,
    b: &Array,
    scale: f32,
    lengths: &Array,
    outs: usize,
) -> Result<Array> {
    let rows: Vec<u32> = (0..outs as u32).collect();
    let weight = matrix.rows(&Array::from_slice(&rows, &[outs as i32]))?;
    let sum = weight.add(a.matmul(b)?.transpose()?.multiply(Array::from_f32(scale))?)?;
    lengths.divide(sum.square()?.sum_axis(-1, false)?.sqrt()?)
}
