//! Encoder of Whisper (arXiv 2212.04356), which other speech models have too: two convolutions over
//! a log-mel spectrogram, then layers in which all positions attend to each other.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::Mask;

use super::conv::{Conv, ConvArch};
use crate::checkpoint::cursor::Cursor;
use crate::nn::cross_attention::CrossAttention;
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Layer norms of Whisper.
pub const NORM: NormArch = NormArch { kind: NormKind::Layer, eps: 1e-5 };

/// Sizes of an encoder.
#[derive(Clone, Copy, Debug)]
pub struct EncoderArch {
    /// Mel bands.
    pub bands: usize,
    /// Positions of the output, of two frames each.
    pub positions: usize,
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Attention heads of a layer.
    pub heads: usize,
    /// Elements of the inner vectors of feed-forward layers.
    pub inner: usize,
    /// Number of layers.
    pub layers: usize,
}

/// Encoder of log-mel spectrograms.
pub struct Encoder {
    conv1: Conv,
    conv2: Conv,
    /// Embeddings [1, positions, hidden] of the positions.
    positions: Array,
    layers: Vec<Layer>,
    ln_post: Norm,
    ops: &'static dyn Ops,
}

/// Layer: attention and a feed-forward network, each after a norm and added to its input.
struct Layer {
    attn_ln: Norm,
    attn: CrossAttention,
    mlp_ln: Norm,
    mlp: Mlp,
    ops: &'static dyn Ops,
}

impl Encoder {
    /// Loads the encoder at `w`. Its tensors are named as in OpenAI's checkpoints.
    pub fn load(mut w: Cursor, arch: &EncoderArch) -> mlxk_core::Result<Encoder> {
        let &EncoderArch { bands, positions, hidden, .. } = arch;
        let conv = |ins, stride| ConvArch { outs: hidden, ins, taps: 3, stride };
        let conv1 = Conv::load(&mut w, "conv1", &conv(bands, 1))?;
        let conv2 = Conv::load(&mut w, "conv2", &conv(hidden, 2))?;
        let table = match w.has("positional_embedding") {
            true => w.floats("positional_embedding", &[positions, hidden])?,
            false => {
                let (_, dtype) = w.form("ln_post.weight")?;
                sinusoids(positions, hidden).as_dtype(w.computed(dtype)).map_err(mlx::failed)?
            }
        };
        let layers = (0..arch.layers).map(|i| Layer::load(&mut w.at(&format!("blocks.{i}")), arch));
        let layers = layers.collect::<mlxk_core::Result<_>>()?;
        let positions = table.reshape(&[1, positions as i32, hidden as i32]);
        Ok(Encoder {
            conv1,
            conv2,
            positions: positions.map_err(mlx::failed)?,
            layers,
            ln_post: NORM.load(&mut w, "ln_post", hidden)?,
            ops: w.ops(),
        })
    }

    /// Hidden states [1, positions, hidden] of a spectrogram [1, 2 * positions, bands].
    pub fn forward(&self, mel: &Array) -> Result<Array> {
        let mel = mel.as_dtype(self.positions.dtype())?;
        let x = self.ops.activate(&self.conv1.forward(&mel)?, Activation::Gelu)?;
        let x = self.ops.activate(&self.conv2.forward(&x)?, Activation::Gelu)?;
        if x.shape() != self.positions.shape() {
            let message = format!("{:?} frames of mel bands cannot be encoded", mel.shape());
            return Err(message.as_str().into());
        }
        let x = self.ops.add(&x, &self.positions)?;
        let h = self.layers.iter().try_fold(x, |x, layer| layer.forward(&x))?;
        self.ln_post.forward(&h)
    }
}

impl Layer {
    fn load(w: &mut Cursor, arch: &EncoderArch) -> mlxk_core::Result<Layer> {
        let &EncoderArch { hidden, heads, inner, .. } = arch;
        Ok(Layer {
            attn_ln: NORM.load(w, "attn_ln", hidden)?,
            attn: CrossAttention::load(&mut w.at("attn"), hidden, heads)?,
            mlp_ln: NORM.load(w, "mlp_ln", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, &mlp(inner), NORM)?,
            ops: w.ops(),
        })
    }

    /// Output [1, positions, hidden] for `x` of that shape.
    fn forward(&self, x: &Array) -> Result<Array> {
        let inner = self.attn_ln.forward(x)?;
        let kv = self.attn.keys_values(&inner)?;
        let mixed = self.attn.mix(&self.attn.queries(&inner)?, &kv, &Mask::All)?;
        let h = self.ops.add(x, &self.attn.output(&mixed)?)?;
        self.ops.add(&h, &self.mlp.forward(&self.mlp_ln.forward(&h)?)?)
    }
}

/// Feed-forward layers of Whisper, with `inner` elements in the middle.
pub fn mlp(inner: usize) -> MlpArch {
    MlpArch { inner, gated: false, fused: false, activation: Activation::Gelu }
}

/// Embeddings [positions, hidden] of positions: sines of frequencies from 1 to 1/10000 in a geometric
/// series, then their cosines.
fn sinusoids(positions: usize, hidden: usize) -> Array {
    let half = hidden / 2;
    let step = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let row = |position: usize| {
        let angles = (0..half).map(move |i| position as f64 * (-step * i as f64).exp());
        angles.clone().map(f64::sin).chain(angles.map(f64::cos)).map(|x| x as f32)
    };
    let all: Vec<f32> = (0..positions).flat_map(row).collect();
    Array::from_slice(&all, &[positions as i32, 2 * half as i32])
}
