//! Patch embedding: a convolution whose stride is its kernel, as one product with flattened
//! patches.

use mlx_rs::error::Result;
use mlx_rs::{Array, Dtype};

use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::reshape::transposed;
use crate::nn::linear::Linear;

/// Sizes of a patch embedding.
pub struct PatchArch {
    /// Number of elements of a patch embedding.
    pub hidden: usize,
    /// Number of image channels.
    pub channels: usize,
    /// Frames, height and width of a patch.
    pub kernel: [usize; 3],
    /// Order of the values of a patch.
    pub order: PatchOrder,
}

/// Order of the values of a flattened patch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PatchOrder {
    /// By channel, frame, y and x, as PyTorch has the weights of convolutions.
    ChannelsFirst,
    /// By frame, y, x and channel, as MLX has them.
    ChannelsLast,
}

/// Linear projection of flattened patches to embeddings.
pub struct PatchEmbed {
    proj: Linear,
    /// Type in which the tower computes.
    dtype: Dtype,
    columns: i32,
}

impl PatchEmbed {
    /// Loads the convolution `name` of `w`, whose channels come last (MLX) or before the kernel
    /// (PyTorch).
    pub fn load(w: &mut Cursor, name: &str, arch: &PatchArch) -> mlxk_core::Result<PatchEmbed> {
        let &PatchArch { hidden, channels, kernel: [frames, height, width], order } = arch;
        let volume = frames * height * width;
        let mut at = w.at(name);
        let weight = at.take("weight")?;
        let dtype = at.computed(weight.dtype);
        // A convolution over one frame has no axis of frames.
        let flat = frames == 1 && weight.shape.len() == 4;
        let kernel = if flat { vec![height, width] } else { vec![frames, height, width] };
        let first = [&[hidden, channels], kernel.as_slice()].concat();
        let last = [&[hidden], kernel.as_slice(), &[channels]].concat();
        let found = match weight.shape == last {
            true => PatchOrder::ChannelsLast,
            false => {
                at.expect("weight", &weight, &[weight.dtype], &first)?;
                PatchOrder::ChannelsFirst
            }
        };
        let weight = match (found, order) {
            (PatchOrder::ChannelsLast, PatchOrder::ChannelsFirst) => {
                transposed(weight.shaped(vec![hidden, volume, channels]))
            }
            (PatchOrder::ChannelsFirst, PatchOrder::ChannelsLast) => {
                transposed(weight.shaped(vec![hidden, channels, volume]))
            }
            _ => weight,
        };
        let columns = channels * volume;
        at.put("weight", weight.shaped(vec![hidden, columns]));
        let proj = Linear::load(w, name, hidden, columns)?;
        Ok(PatchEmbed { proj, dtype, columns: columns as i32 })
    }

    /// Embeddings [1, rows, hidden] of patches [rows, columns].
    pub fn forward(&self, pixels: &Array) -> Result<Array> {
        if pixels.shape().get(1) != Some(&self.columns) {
            let message = format!("{:?} pixels, for patches of {}", pixels.shape(), self.columns);
            return Err(message.as_str().into());
        }
        self.proj.forward(&pixels.as_dtype(self.dtype)?.expand_dims(0)?)
    }
}
