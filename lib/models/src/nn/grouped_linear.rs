//! Linear layer with a matrix for each group of heads.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::quantization::Mode;
use mlxk_tensor::quantized;
use mlxk_tensor::weight::Quantized;

use super::matrix::load_packed;
use crate::checkpoint::cursor::Cursor;

/// Weights [groups, outs, ins] of a linear layer that multiplies each group by its own matrix.
pub enum GroupedLinear {
    /// Floating-point weights.
    Dense(Array),
    /// Quantised weights.
    Quantized(Quantized),
}

impl GroupedLinear {
    /// Loads the weights `name` of `w`, of `shape` [groups, outs, ins].
    pub fn load(w: &mut Cursor, name: &str, shape: [usize; 3]) -> mlxk_core::Result<GroupedLinear> {
        let mut w = w.at(name);
        Ok(match w.quantized() {
            None => {
                w.matrix(None);
                GroupedLinear::Dense(w.floats("weight", &shape)?)
            }
            Some(stated) => {
                let packed = load_packed(&mut w, stated, &shape[..2], shape[2])?;
                // MLX's matrix product requires scales of the type of activations.
                let scales = match packed.mode {
                    Mode::Affine => w.widened(packed.scales)?,
                    _ => packed.scales,
                };
                let biases = packed.biases.map(|biases| w.widened(biases)).transpose()?;
                GroupedLinear::Quantized(Quantized { scales, biases, ..packed })
            }
        })
    }

    /// Product of each group: `x W.T` if `transposed`, else `x W`, with `x` [1, groups or 1,
    /// length, ..].
    pub fn times(&self, x: &Array, transposed: bool) -> Result<Array> {
        match self {
            GroupedLinear::Dense(weight) if transposed => x.matmul(weight.swap_axes(-1, -2)?),
            GroupedLinear::Dense(weight) => x.matmul(weight),
            GroupedLinear::Quantized(packed) => quantized::matmul(packed, x, transposed),
        }
    }
}
