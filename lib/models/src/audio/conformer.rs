//! Fast Conformer (arXiv 2305.05084): convolution-augmented transformer layers (Conformer, arXiv
//! 2005.08100) over a spectrum whose time is an eighth.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, zeros_dtype};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::conv1d::Conv1d;
use serde::Deserialize;
use serde_json::Value;

use super::relative_attention::{RelativeAttention, distances};
use super::strided_conv::{as_matrix, channels_last};
use super::subsampling::{Subsampling, SubsamplingArch};
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::norm::{Norm, NormArch, NormKind};

/// `encoder` of NeMo's configuration; fields are named as in the file.
#[derive(Deserialize)]
struct Config {
    feat_in: usize,
    n_layers: usize,
    d_model: usize,
    n_heads: usize,
    #[serde(default = "four")]
    ff_expansion_factor: usize,
    subsampling: String,
    subsampling_factor: usize,
    subsampling_conv_channels: usize,
    #[serde(default)]
    causal_downsampling: bool,
    self_attention_model: String,
    att_context_size: Option<Value>,
    conv_kernel_size: usize,
    conv_norm_type: Option<String>,
    #[serde(default)]
    xscaling: bool,
}

const fn four() -> usize {
    4
}

impl Config {
    fn read(config: &Value) -> mlxk_core::Result<Config> {
        let c: Config = fields(config)?;
        positive(&[
            ("encoder.feat_in", c.feat_in),
            ("encoder.d_model", c.d_model),
            ("encoder.n_heads", c.n_heads),
            ("encoder.ff_expansion_factor", c.ff_expansion_factor),
            ("encoder.subsampling_conv_channels", c.subsampling_conv_channels),
        ])?;
        most_layers(c.n_layers)?;
        if !c.d_model.is_multiple_of(2 * c.n_heads) {
            let message = format!("{} heads cannot share {} elements", c.n_heads, c.d_model);
            return Err(invalid(message));
        }
        if c.conv_kernel_size.is_multiple_of(2) || c.conv_kernel_size > 255 {
            let message = format!("`encoder.conv_kernel_size` cannot be {}", c.conv_kernel_size);
            return Err(invalid(message));
        }
        if !c.subsampling_factor.is_power_of_two() || !(2..=64).contains(&c.subsampling_factor) {
            let factor = c.subsampling_factor;
            return Err(invalid(format!("`encoder.subsampling_factor` cannot be {factor}")));
        }
        c.check_kinds()?;
        Ok(c)
    }

    /// Errors if a part is of a kind that cannot run.
    fn check_kinds(&self) -> mlxk_core::Result<()> {
        let cannot = |what: String| Err(unknown(what));
        let norm = self.conv_norm_type.as_deref().unwrap_or("batch_norm");
        let whole = |size: &Value| size.as_i64() == Some(-1);
        let everywhere = match &self.att_context_size {
            Some(Value::Array(sizes)) => sizes.iter().all(whole),
            _ => true,
        };
        match () {
            () if self.subsampling != "dw_striding" || self.causal_downsampling => {
                cannot(format!("subsampling `{}`, or a causal one, cannot run", self.subsampling))
            }
            () if self.self_attention_model != "rel_pos" => {
                cannot(format!("attention `{}` cannot run", self.self_attention_model))
            }
            () if norm != "batch_norm" => cannot(format!("convolutions with `{norm}` cannot run")),
            () if !everywhere => cannot("attention to part of the speech cannot run".into()),
            () => Ok(()),
        }
    }
}

/// Encoder: subsampling, and Conformer layers.
pub struct Conformer {
    subsampling: Subsampling,
    layers: Vec<Layer>,
    /// Factor of the hidden vectors that enter the first layer.
    scale: Option<f32>,
    /// Elements of a hidden vector.
    pub hidden: usize,
    /// Frames of the spectrum for each row of the output.
    pub stride: usize,
    /// Bands of the spectrum.
    pub bands: usize,
}

impl Conformer {
    /// Loads the encoder at `w`; `config` is `encoder` of NeMo's configuration.
    pub fn load(config: &Value, w: &mut Cursor) -> mlxk_core::Result<Conformer> {
        let c = Config::read(config)?;
        // Numbers of steps of training.
        w.discard(|name| name.ends_with("batch_norm.num_batches_tracked"));
        w.rename(&[("up_proj", "linear1"), ("down_proj", "linear2")]);
        let arch = SubsamplingArch {
            bands: c.feat_in,
            halvings: c.subsampling_factor.ilog2() as usize,
            channels: c.subsampling_conv_channels,
            hidden: c.d_model,
        };
        let layer = |i: usize| Layer::load(&mut w.at(&format!("layers.{i}")), &c);
        let layers = (0..c.n_layers).map(layer).collect::<mlxk_core::Result<_>>()?;
        Ok(Conformer {
            subsampling: Subsampling::load(&mut w.at("pre_encode"), &arch)?,
            layers,
            scale: c.xscaling.then_some((c.d_model as f32).sqrt()),
            hidden: c.d_model,
            stride: c.subsampling_factor,
            bands: c.feat_in,
        })
    }

    /// Hidden states [1, rows, hidden] of a spectrum [1, frames, bands], a row for `stride` frames.
    pub fn forward(&self, mel: &Array) -> Result<Array> {
        let x = self.subsampling.forward(mel)?;
        let x = match self.scale {
            Some(scale) => x.multiply(mlx::number(scale, &x)?)?,
            None => x,
        };
        let distances = distances(x.dim(1), x.dim(2), x.dtype())?;
        self.layers.iter().try_fold(x, |x, layer| layer.forward(&x, &distances))
    }
}

/// Norms of layers.
const NORM: NormArch = NormArch { kind: NormKind::Layer, eps: 1e-5 };

/// Conformer layer: half of a feed-forward layer, self-attention, convolution, and the other half.
struct Layer {
    norm_feed_forward1: Norm,
    feed_forward1: Mlp,
    norm_self_att: Norm,
    self_attn: RelativeAttention,
    norm_conv: Norm,
    conv: Convolution,
    norm_feed_forward2: Norm,
    feed_forward2: Mlp,
    norm_out: Norm,
    ops: &'static dyn Ops,
}

impl Layer {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<Layer> {
        let hidden = c.d_model;
        let inner = hidden * c.ff_expansion_factor;
        let mlp = MlpArch { inner, gated: false, fused: false, activation: Activation::Silu };
        let norm = |w: &mut Cursor, name| NORM.load(w, name, hidden);
        Ok(Layer {
            norm_feed_forward1: norm(w, "norm_feed_forward1")?,
            feed_forward1: Mlp::load(&mut w.at("feed_forward1"), hidden, &mlp, NORM)?,
            norm_self_att: norm(w, "norm_self_att")?,
            self_attn: RelativeAttention::load(&mut w.at("self_attn"), hidden, c.n_heads)?,
            norm_conv: norm(w, "norm_conv")?,
            conv: Convolution::load(&mut w.at("conv"), hidden, c.conv_kernel_size)?,
            norm_feed_forward2: norm(w, "norm_feed_forward2")?,
            feed_forward2: Mlp::load(&mut w.at("feed_forward2"), hidden, &mlp, NORM)?,
            norm_out: norm(w, "norm_out")?,
            ops: w.ops(),
        })
    }

    /// [1, rows, hidden] to the same shape.
    fn forward(&self, x: &Array, distances: &Array) -> Result<Array> {
        let half = mlx::number(0.5, x)?;
        let fed = self.feed_forward1.forward(&self.norm_feed_forward1.forward(x)?)?;
        let x = self.ops.add(x, &fed.multiply(&half)?)?;
        let attended = self.self_attn.forward(&self.norm_self_att.forward(&x)?, distances)?;
        let x = self.ops.add(&x, &attended)?;
        let x = self.ops.add(&x, &self.conv.forward(&self.norm_conv.forward(&x)?)?)?;
        let fed = self.feed_forward2.forward(&self.norm_feed_forward2.forward(&x)?)?;
        self.norm_out.forward(&self.ops.add(&x, &fed.multiply(&half)?)?)
    }
}

/// Convolution module: a gated projection, a depthwise convolution along time with batch norm and
/// SiLU, and a projection back.
struct Convolution {
    pointwise_conv1: Linear,
    /// The depthwise convolution, with the batch norm in its weights.
    depthwise_conv: Conv1d,
    pointwise_conv2: Linear,
    ops: &'static dyn Ops,
}

impl Convolution {
    fn load(w: &mut Cursor, hidden: usize, kernel: usize) -> mlxk_core::Result<Convolution> {
        as_matrix(w, "pointwise_conv1", 2 * hidden, hidden)?;
        as_matrix(w, "pointwise_conv2", hidden, hidden)?;
        Ok(Convolution {
            pointwise_conv1: Linear::load(w, "pointwise_conv1", 2 * hidden, hidden)?,
            depthwise_conv: depthwise(w, hidden, kernel)?,
            pointwise_conv2: Linear::load(w, "pointwise_conv2", hidden, hidden)?,
            ops: w.ops(),
        })
    }

    /// [1, rows, hidden] to the same shape.
    fn forward(&self, x: &Array) -> Result<Array> {
        let hidden = x.dim(2);
        let [up, gate] = self.ops.parts(&self.pointwise_conv1.forward(x)?, [hidden, hidden])?;
        let y = self.ops.glu(&gate, &up, Activation::Sigmoid)?;
        // Centred: a causal convolution of the rows and half a kernel of zeros behind them.
        let half = self.depthwise_conv.weight.dim(1) / 2;
        let zeros = zeros_dtype(&[1, half, hidden], y.dtype())?;
        let y = concatenate(&[&y, &zeros], 1)?.contiguous()?;
        let y = self.ops.conv1d(&self.depthwise_conv, &y, &mut None)?;
        let y = mlx::columns(&y, half..y.dim(1))?.contiguous()?;
        self.pointwise_conv2.forward(&y)
    }
}

/// Loads the depthwise convolution and the batch norm behind it as one convolution, which adds and
/// multiplies as the norm does with the statistics of training.
fn depthwise(w: &mut Cursor, channels: usize, kernel: usize) -> mlxk_core::Result<Conv1d> {
    const EPS: f32 = 1e-5;
    let mut conv = w.at("depthwise_conv");
    channels_last(&mut conv, channels, 1, &[kernel])?;
    let weight = conv.floats("weight", &[channels, kernel, 1])?;
    let bias = conv.optional("bias", &[channels])?;
    let mut norm = w.at("batch_norm");
    let mut of = |name| norm.floats(name, &[channels]);
    let (mean, variance) = (of("running_mean")?, of("running_var")?);
    let (factor, shift) = (of("weight")?, of("bias")?);
    let folded = || {
        let deviation = variance.add(mlx::number(EPS, &variance)?)?.sqrt()?;
        let factor = factor.divide(deviation)?;
        let centre = match &bias {
            Some(bias) => bias.subtract(&mean)?,
            None => mean.negative()?,
        };
        let weight = weight.multiply(factor.reshape(&[-1, 1, 1])?)?;
        let bias = centre.multiply(&factor)?.add(&shift)?;
        Ok::<_, mlx_rs::error::Exception>(Conv1d { weight, bias: Some(bias), silu: true })
    };
    folded().map_err(mlx::failed)
}
