//! Low-rank adaptation of linear layers (LoRA, arXiv 2106.09685), and its weight-decomposed form
//! (DoRA, arXiv 2402.09353).

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;

use super::matrix::Matrix;
use crate::checkpoint::cursor::Cursor;

/// Low-rank addition to a matrix [outs, ins].
pub struct Lora {
    /// First factor, [ins, rank].
    a: Array,
    /// Second factor, [rank, outs].
    b: Array,
    scale: f32,
    /// Factor of each output in DoRA, `[outs]`.
    dora_scale: Option<Array>,
}

impl Lora {
    /// Loads the addition to `matrix` from the same place `w`; `None` if the adapter has none.
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
        let dora_scale = lengths.map(|lengths| dora_scale(matrix, &a, &b, scale, &lengths, outs));
        let dora_scale = dora_scale.transpose().map_err(mlx::failed)?;
        Ok(Some(Lora { a, b, scale, dora_scale }))
    }

    /// Output [.., outs] with the addition, of the matrix's output `y` for `x` [.., ins].
    pub fn add(&self, x: &Array, y: &Array) -> Result<Array> {
        let z = x.matmul(&self.a)?.matmul(&self.b)?.multiply(Array::from_f32(self.scale))?;
        let y = y.add(z.as_dtype(x.dtype())?)?;
        match &self.dora_scale {
            Some(dora_scale) => y.multiply(dora_scale)?.as_dtype(x.dtype()),
            None => Ok(y),
        }
    }
}

/// Stored magnitudes of rows divided by those of the sum of matrix and addition.
fn dora_scale(
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
