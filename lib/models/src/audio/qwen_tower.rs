//! Tower of Qwen's models that hear (arXiv 2601.21337): convolutions that make an eighth of time and
//! frequency of each second, and layers in which the positions of some seconds attend to each other.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, pad};
use mlx_rs::transforms::eval;
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams, Mask};
use serde::Deserialize;
use serde_json::Value;

use super::encoder::sinusoids;
use super::strided_conv::{StridedConv, StridedConvArch};
use super::tower::AudioTower;
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// `audio_config` of config.json; fields are named as in the file.
#[derive(Deserialize)]
struct Config {
    num_mel_bins: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    d_model: usize,
    output_dim: usize,
    n_window: usize,
    n_window_infer: usize,
    downsample_hidden_size: usize,
    #[serde(default)]
    scale_embedding: bool,
}

/// Norms of layers.
const NORM: NormArch = NormArch { kind: NormKind::Layer, eps: 1e-5 };
/// Parts that are convolved at once, which bounds the memory.
const PARTS: usize = 16;

/// Tower, with the projector to the language model.
pub struct QwenTower {
    convs: [StridedConv; 3],
    conv_out: Linear,
    layers: Vec<Layer>,
    ln_post: Norm,
    proj1: Linear,
    proj2: Linear,
    /// Embeddings [positions of a part, hidden] of the positions of a part.
    positions: Array,
    bands: usize,
    /// Frames of a part.
    part: usize,
    /// Parts whose positions attend to each other.
    together: usize,
    ops: &'static dyn Ops,
}

impl QwenTower {
    /// Loads the tower at `w`, of a language model with `hidden` elements of a vector.
    ///
    /// # Errors
    /// If a field of `config` is missing or out of range, and if a tensor is missing or of another
    /// shape.
    pub fn load(config: &Value, w: &mut Cursor, hidden: usize) -> mlxk_core::Result<QwenTower> {
        let c: Config = fields(config)?;
        c.check(hidden)?;
        let channels = c.downsample_hidden_size;
        let mut conv = |i: usize| {
            let arch = StridedConvArch {
                outs: channels,
                ins: if i == 0 { 1 } else { channels },
                kernel: &[3, 3],
                stride: 2,
                padding: [1, 1],
                groups: 1,
            };
            StridedConv::load(w, &format!("conv2d{}", i + 1), &arch)
        };
        let convs = [conv(0)?, conv(1)?, conv(2)?];
        let (part, width) = (2 * c.n_window, c.d_model);
        let layer = |i| Layer::load(&mut w.at(&format!("layers.{i}")), &c);
        let layers = (0..c.encoder_layers).map(layer).collect::<mlxk_core::Result<_>>()?;
        let (_, dtype) = w.form("ln_post.weight")?;
        let positions = sinusoids(eighth(part), width).as_dtype(w.computed(dtype));
        Ok(QwenTower {
            convs,
            conv_out: Linear::load(w, "conv_out", width, channels * eighth(c.num_mel_bins))?,
            layers,
            ln_post: NORM.load(w, "ln_post", width)?,
            proj1: Linear::load(w, "proj1", width, width)?,
            proj2: Linear::load(w, "proj2", c.output_dim, width)?,
            positions: positions.map_err(mlx::failed)?,
            bands: c.num_mel_bins,
            part,
            together: c.n_window_infer / part,
            ops: w.ops(),
        })
    }

    /// Hidden states [1, positions, hidden] of a spectrum [1, frames, bands], part after part.
    fn convolved(&self, mel: &Array) -> Result<Array> {
        let frames = mel.dim(1) as usize;
        // A recording that is shorter than a part is one short part.
        let width = self.part.min(frames) as i32;
        let starts: Vec<usize> = (0..frames).step_by(self.part).collect();
        let mut all = Vec::new();
        for starts in starts.chunks(PARTS) {
            let part = |&start: &usize| {
                let end = (start + self.part).min(frames) as i32;
                let part = mlx::columns(mel, start as i32..end)?;
                let missing = width - part.dim(1);
                pad(part, &[(0, 0), (0, missing), (0, 0)][..], None, None)
            };
            let parts: Vec<Array> = starts.iter().map(part).collect::<Result<_>>()?;
            // [parts, bands, frames, 1].
            let mut x = concatenate(&parts, 0)?.transpose_axes(&[0, 2, 1])?.expand_dims(-1)?;
            for conv in &self.convs {
                x = self.ops.activate(&conv.forward(&x)?, Activation::Gelu)?;
            }
            let x = x.transpose_axes(&[0, 2, 3, 1])?.contiguous()?;
            let x = self.conv_out.forward(&x.reshape(&[x.dim(0), x.dim(1), -1])?)?;
            let x = x.add(mlx::entries(&self.positions, 0..x.dim(1))?)?;
            for (i, start) in starts.iter().enumerate() {
                let count = eighth((frames - start).min(self.part)) as i32;
                let own = mlx::entries(&x, i as i32..i as i32 + 1)?;
                all.push(mlx::columns(&own, 0..count)?);
            }
            eval(&all)?;
        }
        concatenate(&all, 1)?.contiguous()
    }
}

impl AudioTower for QwenTower {
    fn bands(&self) -> usize {
        self.bands
    }

    fn encode(&self, mel: &Array) -> Result<Array> {
        let mel = mel.as_dtype(self.positions.dtype())?;
        let x = self.convolved(&mel)?;
        let whole = eighth(self.part.min(mel.dim(1) as usize)) * self.together;
        let mut left = x.dim(1) as usize;
        let blocks = std::iter::from_fn(|| {
            let block = left.min(whole);
            left -= block;
            (block > 0).then_some(block)
        });
        let mask = Mask::packed(&blocks.collect::<Vec<usize>>());
        let x = self.layers.iter().try_fold(x, |x, layer| layer.forward(&x, &mask))?;
        let x = self.proj1.forward(&self.ln_post.forward(&x)?)?;
        let x = self.proj2.forward(&self.ops.activate(&x, Activation::Gelu)?)?;
        x.reshape(&[x.dim(1), x.dim(2)])
    }
}

impl Config {
    fn check(&self, hidden: usize) -> mlxk_core::Result<()> {
        positive(&[
            ("audio_config.num_mel_bins", self.num_mel_bins),
            ("audio_config.encoder_attention_heads", self.encoder_attention_heads),
            ("audio_config.encoder_ffn_dim", self.encoder_ffn_dim),
            ("audio_config.d_model", self.d_model),
            ("audio_config.n_window", self.n_window),
            ("audio_config.downsample_hidden_size", self.downsample_hidden_size),
        ])?;
        most_layers(self.encoder_layers)?;
        let refused = |message: String| Err(invalid(format!("`audio_config`: {message}")));
        let (heads, width) = (self.encoder_attention_heads, self.d_model);
        match () {
            () if !width.is_multiple_of(heads) || width < 4 || !width.is_multiple_of(2) => {
                refused(format!("{heads} heads cannot share {width} elements"))
            }
            () if self.output_dim != hidden => {
                let found = self.output_dim;
                refused(format!("features of {found} elements, for a model of {hidden}"))
            }
            () if self.n_window > 10_000 || self.n_window_infer < 2 * self.n_window => {
                refused(format!("`n_window_infer` cannot be {}", self.n_window_infer))
            }
            () if self.scale_embedding => refused("`scale_embedding` cannot be true".into()),
            () => Ok(()),
        }
    }
}

/// Number of positions of `count` frames or bands after three convolutions that halve them.
fn eighth(count: usize) -> usize {
    count.div_ceil(2).div_ceil(2).div_ceil(2)
}

/// Layer: attention and a feed-forward network, each after a norm and added to its input.
struct Layer {
    self_attn_layer_norm: Norm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    final_layer_norm: Norm,
    fc1: Linear,
    fc2: Linear,
    head_dim: i32,
    params: AttentionParams,
    ops: &'static dyn Ops,
}

impl Layer {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<Layer> {
        let (width, inner) = (c.d_model, c.encoder_ffn_dim);
        let head_dim = width / c.encoder_attention_heads;
        let scale = (head_dim as f32).sqrt().recip();
        let mut attention = w.at("self_attn");
        let mut proj = |name| Linear::load(&mut attention, name, width, width);
        let [q_proj, k_proj] = [proj("q_proj")?, proj("k_proj")?];
        let [v_proj, out_proj] = [proj("v_proj")?, proj("out_proj")?];
        Ok(Layer {
            self_attn_layer_norm: NORM.load(w, "self_attn_layer_norm", width)?,
            q_proj,
            k_proj,
            v_proj,
            out_proj,
            final_layer_norm: NORM.load(w, "final_layer_norm", width)?,
            fc1: Linear::load(w, "fc1", inner, width)?,
            fc2: Linear::load(w, "fc2", width, inner)?,
            head_dim: head_dim as i32,
            params: AttentionParams { scale, softcap: None, sinks: None, bias: None },
            ops: w.ops(),
        })
    }

    /// [1, positions, hidden] to the same shape.
    fn forward(&self, x: &Array, mask: &Mask) -> Result<Array> {
        let inner = self.self_attn_layer_norm.forward(x)?;
        let heads = |proj: &Linear| {
            let size = self.head_dim;
            let params = HeadsParams { size, norm: None, rotated_first: false, rope: None };
            self.ops.split_heads(&proj.forward(&inner)?, &params)
        };
        let (q, k, v) = (heads(&self.q_proj)?, heads(&self.k_proj)?, heads(&self.v_proj)?);
        let mixed = self.ops.attend(&q, [&k, &v], mask, &self.params)?;
        let h = self.ops.add(x, &self.out_proj.forward(&mixed)?)?;
        let inner = self.fc1.forward(&self.final_layer_norm.forward(&h)?)?;
        self.ops.add(&h, &self.fc2.forward(&self.ops.activate(&inner, Activation::Gelu)?)?)
    }
}
