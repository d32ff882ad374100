//! Moonshine (arXiv 2410.15608): an encoder of samples and a decoder, both with rotary positions.

use mlx_rs::error::Result;
use mlx_rs::ops::{concatenate, tanh, zeros_dtype};
use mlx_rs::{Array, Dtype};
use mlxk_core::Architecture;
use mlxk_tensor::cache::{Cache, Kv, Sequences, Slot};
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::{AttentionParams, HeadsParams, Mask};
use mlxk_tensor::ops::rope::{Rope, Scaling};
use mlxk_tensor::positions::Positions;
use serde::Deserialize;
use serde_json::Value;

use super::{EncoderDecoder, Heard, Input, Sizes, Speech};
use crate::audio::strided_conv::{StridedConv, StridedConvArch};
use crate::checkpoint::config_error::{even, fields, invalid, most_layers, positive};
use crate::checkpoint::cursor::Cursor;
use crate::nn::attention::{self, Attention, Sharing};
use crate::nn::linear::{Embedding, Linear};
use crate::nn::mlp::{Mlp, MlpArch};
use crate::nn::norm::{Norm, NormArch, NormKind};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::speech(Architecture::Moonshine, load)];

/// Fields of config.json, named as in the file.
#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    encoder_num_hidden_layers: usize,
    decoder_num_hidden_layers: usize,
    encoder_num_attention_heads: usize,
    decoder_num_attention_heads: usize,
    encoder_num_key_value_heads: Option<usize>,
    decoder_num_key_value_heads: Option<usize>,
    #[serde(default = "gelu")]
    encoder_hidden_act: String,
    #[serde(default = "silu")]
    decoder_hidden_act: String,
    max_position_embeddings: usize,
    partial_rotary_factor: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Scaling>,
    tie_word_embeddings: Option<bool>,
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn silu() -> String {
    "silu".to_owned()
}

/// Numbers of heads, and their rotation.
struct Heads {
    queries: usize,
    keys: usize,
    size: usize,
    rope: Rope,
}

impl Config {
    fn read(config: &Value) -> mlxk_core::Result<Config> {
        let c: Config = fields(config)?;
        positive(&[
            ("vocab_size", c.vocab_size),
            ("hidden_size", c.hidden_size),
            ("intermediate_size", c.intermediate_size),
            ("encoder_num_attention_heads", c.encoder_num_attention_heads),
            ("decoder_num_attention_heads", c.decoder_num_attention_heads),
            ("max_position_embeddings", c.max_position_embeddings),
        ])?;
        most_layers(c.encoder_num_hidden_layers)?;
        most_layers(c.decoder_num_hidden_layers)?;
        Ok(c)
    }

    /// Heads of the encoder or the decoder. Errors if their numbers do not fit.
    fn heads(&self, queries: usize, keys: Option<usize>) -> mlxk_core::Result<Heads> {
        let keys = keys.unwrap_or(queries);
        positive(&[("num_key_value_heads", keys)])?;
        even(queries, keys)?;
        if !self.hidden_size.is_multiple_of(queries) {
            let hidden = self.hidden_size;
            return Err(invalid(format!("{queries} heads cannot share {hidden} elements")));
        }
        let size = self.hidden_size / queries;
        let within = self.rope_parameters.as_ref();
        let part = within.and_then(|rope| rope.partial_rotary_factor);
        let part = part.or(self.partial_rotary_factor).unwrap_or(0.9);
        let stated = (size as f64 * part) as usize;
        // An odd number means a pair more, and wavelengths that fall as if it were a number of elements.
        let dims = stated.next_multiple_of(2);
        if stated == 0 || dims > size {
            return Err(invalid(format!("{stated} elements of a head of {size} cannot rotate")));
        }
        let theta = within.and_then(|rope| rope.rope_theta).or(self.rope_theta);
        let theta = theta.unwrap_or(10_000.0).powf(dims as f64 / stated as f64);
        let rope = Rope::new(dims, true, theta, None, within)?;
        Ok(Heads { queries, keys, size, rope })
    }

    /// Feed-forward layers with the activation that config.json calls `name`.
    fn mlp(&self, name: &str, gated: bool) -> mlxk_core::Result<MlpArch> {
        let activation = match name {
            "gelu" => Activation::Gelu,
            "silu" => Activation::Silu,
            other => return Err(invalid(format!("activation `{other}` cannot run"))),
        };
        Ok(MlpArch { inner: self.intermediate_size, gated, fused: false, activation })
    }
}

/// Norms of layers, without biases.
const NORM: NormArch = NormArch { kind: NormKind::Layer, eps: 1e-5 };

/// Network of the family.
struct Moonshine {
    sizes: Sizes,
    encoder: Encoder,
    embed_tokens: Embedding,
    layers: Vec<DecoderLayer>,
    norm: Norm,
    /// Head of a model without tied embeddings.
    proj_out: Option<Linear>,
}

fn load(config: &Value, mut w: Cursor) -> mlxk_core::Result<Speech> {
    let c = Config::read(config)?;
    w.rename(&[("up_proj", "fc1"), ("down_proj", "fc2")]);
    if c.tie_word_embeddings.unwrap_or(true) {
        w.discard(|name| name.starts_with("proj_out."));
    }
    let untied = w.at("proj_out").has("weight");
    let proj_out = untied.then(|| Linear::load(&mut w, "proj_out", c.vocab_size, c.hidden_size));
    let proj_out = proj_out.transpose()?;
    // transformers has the two below `model`.
    let mut w = match w.at("model.decoder.embed_tokens").has("weight") {
        true => w.at("model"),
        false => w,
    };
    let encoder = Encoder::load(&mut w.at("encoder"), &c)?;
    let mut w = w.at("decoder");
    let layer = |i| DecoderLayer::load(&mut w.at(&format!("layers.{i}")), &c);
    let layers = (0..c.decoder_num_hidden_layers).map(layer).collect::<mlxk_core::Result<_>>()?;
    Ok(Speech::Attention(Box::new(Moonshine {
        sizes: Sizes {
            input: Input::Samples,
            vocabulary: c.vocab_size,
            tokens: c.max_position_embeddings,
            alignment_heads: Vec::new(),
        },
        encoder,
        embed_tokens: Embedding::load(&mut w, "embed_tokens", c.vocab_size, c.hidden_size)?,
        layers,
        norm: NORM.load(&mut w, "norm", c.hidden_size)?,
        proj_out,
    })))
}

impl EncoderDecoder for Moonshine {
    fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    fn encode(&self, audio: &Array) -> Result<Array> {
        self.encoder.forward(audio)
    }

    fn hear(&self, states: &Array) -> Result<Heard> {
        let layers = self.layers.iter().map(|layer| layer.encoder_attn.keys_values(states));
        Ok(Heard { layers: layers.collect::<Result<_>>()? })
    }

    fn cache(&self) -> Cache {
        Cache { slots: self.layers.iter().map(|_| Slot::Kv(Kv::new(None))).collect() }
    }

    fn forward(&self, ids: &Array, sequences: &mut Sequences, heard: &[&Heard]) -> Result<Array> {
        let mut h = self.embed_tokens.forward(ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            h = layer.forward(&h, sequences, heard, i)?;
        }
        self.norm.forward(&h)
    }

    fn head(&self, h: &Array) -> Result<Array> {
        match &self.proj_out {
            Some(head) => head.forward(h),
            None => self.embed_tokens.as_linear(h),
        }
    }
}

/// Encoder: three strided convolutions, and layers in which all positions attend to each other.
struct Encoder {
    conv1: StridedConv,
    groupnorm: [Array; 2],
    conv2: StridedConv,
    conv3: StridedConv,
    layers: Vec<EncoderLayer>,
    layer_norm: Norm,
    ops: &'static dyn Ops,
}

/// Samples that the three convolutions see at least, of one position.
const SHORTEST: i32 = 127 + (6 + 3 * 2) * 64;

impl Encoder {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<Encoder> {
        let hidden = c.hidden_size;
        let mut conv = |name, outs, ins, taps: usize, stride| {
            let kernel = &[taps];
            let arch = StridedConvArch { outs, ins, kernel, stride, padding: [0; 2], groups: 1 };
            StridedConv::load(w, name, &arch)
        };
        let conv1 = conv("conv1", hidden, 1, 127, 64)?;
        let conv2 = conv("conv2", 2 * hidden, hidden, 7, 3)?;
        let conv3 = conv("conv3", hidden, 2 * hidden, 3, 2)?;
        let mut group = w.at("groupnorm");
        let groupnorm = [group.floats("weight", &[hidden])?, group.floats("bias", &[hidden])?];
        let layer = |i| EncoderLayer::load(&mut w.at(&format!("layers.{i}")), c);
        let layers = (0..c.encoder_num_hidden_layers).map(layer);
        Ok(Encoder {
            conv1,
            groupnorm,
            conv2,
            conv3,
            layers: layers.collect::<mlxk_core::Result<_>>()?,
            layer_norm: NORM.load(w, "layer_norm", hidden)?,
            ops: w.ops(),
        })
    }

    /// Hidden states [1, positions, hidden] of samples [1, samples], a position for 384 samples. Zeros
    /// follow fewer samples than a position needs.
    fn forward(&self, samples: &Array) -> Result<Array> {
        let samples = samples.as_dtype(self.groupnorm[0].dtype())?;
        let samples = match SHORTEST - samples.dim(1) {
            missing if missing > 0 => {
                concatenate(&[&samples, &zeros_dtype(&[1, missing], samples.dtype())?], 1)?
            }
            _ => samples,
        };
        let x = tanh(self.conv1.forward(&samples.expand_dims(-1)?)?)?;
        let x = self.conv2.forward(&self.group_norm(&x)?)?;
        let x = self.conv3.forward(&self.ops.activate(&x, Activation::Gelu)?)?;
        let x = self.ops.activate(&x, Activation::Gelu)?;
        let x = self.layers.iter().try_fold(x, |x, layer| layer.forward(&x))?;
        self.layer_norm.forward(&x)
    }

    /// Group norm (arXiv 1803.08494) of a single group, which is all of `x`.
    fn group_norm(&self, x: &Array) -> Result<Array> {
        let wide = x.as_dtype(Dtype::Float32)?;
        let centred = wide.subtract(wide.mean(None)?)?;
        let variance = centred.square()?.mean(None)?;
        let deviation = variance.add(Array::from_f32(NORM.eps))?.sqrt()?;
        let [weight, bias] = &self.groupnorm;
        centred.divide(deviation)?.multiply(weight)?.add(bias)?.as_dtype(x.dtype())
    }
}

/// Layer of the encoder.
struct EncoderLayer {
    input_layernorm: Norm,
    self_attn: Whole,
    post_attention_layernorm: Norm,
    mlp: Mlp,
    ops: &'static dyn Ops,
}

impl EncoderLayer {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<EncoderLayer> {
        let hidden = c.hidden_size;
        let heads = c.heads(c.encoder_num_attention_heads, c.encoder_num_key_value_heads)?;
        let mlp = c.mlp(&c.encoder_hidden_act, false)?;
        Ok(EncoderLayer {
            input_layernorm: NORM.load(w, "input_layernorm", hidden)?,
            self_attn: Whole::load(&mut w.at("self_attn"), hidden, &heads, true)?,
            post_attention_layernorm: NORM.load(w, "post_attention_layernorm", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, &mlp, NORM)?,
            ops: w.ops(),
        })
    }

    /// [1, positions, hidden] to the same shape.
    fn forward(&self, x: &Array) -> Result<Array> {
        let inner = self.input_layernorm.forward(x)?;
        let kv = self.self_attn.keys_values(&inner)?;
        let h = self.ops.add(x, &self.self_attn.forward(&inner, &kv)?)?;
        self.ops.add(&h, &self.mlp.forward(&self.post_attention_layernorm.forward(&h)?)?)
    }
}

/// Layer of the decoder: attention to the tokens before, attention to the audio, and a gated
/// feed-forward layer.
struct DecoderLayer {
    input_layernorm: Norm,
    self_attn: Attention,
    post_attention_layernorm: Norm,
    encoder_attn: Whole,
    final_layernorm: Norm,
    mlp: Mlp,
    ops: &'static dyn Ops,
}

impl DecoderLayer {
    fn load(w: &mut Cursor, c: &Config) -> mlxk_core::Result<DecoderLayer> {
        let hidden = c.hidden_size;
        let heads = c.heads(c.decoder_num_attention_heads, c.decoder_num_key_value_heads)?;
        let mlp = c.mlp(&c.decoder_hidden_act, true)?;
        w.at("mlp").split("fc1", 1, &[("up_proj", mlp.inner), ("gate_proj", mlp.inner)])?;
        let rope = Some(heads.rope.clone());
        Ok(DecoderLayer {
            input_layernorm: NORM.load(w, "input_layernorm", hidden)?,
            self_attn: Attention::load(&mut w.at("self_attn"), &heads.cached(hidden), rope)?,
            post_attention_layernorm: NORM.load(w, "post_attention_layernorm", hidden)?,
            encoder_attn: Whole::load(&mut w.at("encoder_attn"), hidden, &heads, false)?,
            final_layernorm: NORM.load(w, "final_layernorm", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, &mlp, NORM)?,
            ops: w.ops(),
        })
    }

    /// [1, rows, hidden] to the same shape; this is layer `number`.
    fn forward(
        &self,
        x: &Array,
        sequences: &mut Sequences,
        heard: &[&Heard],
        number: usize,
    ) -> Result<Array> {
        let inner = self.input_layernorm.forward(x)?;
        let h = self.ops.add(x, &self.self_attn.forward(&inner, sequences, number)?)?;
        let inner = self.post_attention_layernorm.forward(&h)?;
        let mut heard = heard.iter();
        let mixed = sequences.each_sequence([&inner], |[rows], _| {
            let heard = heard.next().and_then(|heard| heard.layers.get(number));
            self.encoder_attn.forward(rows, heard.ok_or("a sequence without audio")?)
        })?;
        let h = self.ops.add(&h, &sequences.joined(mixed)?)?;
        self.ops.add(&h, &self.mlp.forward(&self.final_layernorm.forward(&h)?)?)
    }
}

impl Heads {
    /// Sizes of attention with a cache.
    fn cached(&self, hidden: usize) -> attention::Sizes {
        attention::Sizes {
            hidden,
            heads: self.queries,
            kv_heads: self.keys,
            head_dim: self.size,
            value_dim: self.size,
            value_scale: 1.0,
            scale: (self.size as f32).powf(-0.5),
            softcap: None,
            norm: NORM,
            rotated_first: false,
            fused: None,
            clip: None,
            sinks: Some(false),
            sharing: Sharing::Nothing,
            gate: None,
            temperature_tuning: None,
        }
    }
}

/// Attention to vectors that are all there: those of the encoder, or the rows themselves.
struct Whole {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    /// Rotation by positions; `None` if the layer has none.
    rope: Option<Rope>,
    size: i32,
    params: AttentionParams,
    ops: &'static dyn Ops,
}

impl Whole {
    fn load(
        w: &mut Cursor,
        hidden: usize,
        heads: &Heads,
        rotated: bool,
    ) -> mlxk_core::Result<Whole> {
        let kv = heads.keys * heads.size;
        let scale = (heads.size as f32).powf(-0.5);
        Ok(Whole {
            q_proj: Linear::load(w, "q_proj", hidden, hidden)?,
            k_proj: Linear::load(w, "k_proj", kv, hidden)?,
            v_proj: Linear::load(w, "v_proj", kv, hidden)?,
            o_proj: Linear::load(w, "o_proj", hidden, hidden)?,
            rope: rotated.then(|| heads.rope.clone()),
            size: heads.size as i32,
            params: AttentionParams { scale, softcap: None, sinks: None, bias: None },
            ops: w.ops(),
        })
    }

    /// Keys and values [1, heads, positions, head size] of vectors [1, positions, hidden].
    fn keys_values(&self, x: &Array) -> Result<[Array; 2]> {
        let keys = self.heads(&self.k_proj.forward(x)?, self.rope.as_ref())?;
        Ok([keys, self.heads(&self.v_proj.forward(x)?, None)?])
    }

    /// Attention of rows [1, rows, hidden] to `keys` and `values`; of that shape.
    fn forward(&self, x: &Array, [keys, values]: &[Array; 2]) -> Result<Array> {
        let queries = self.heads(&self.q_proj.forward(x)?, self.rope.as_ref())?;
        let mixed = self.ops.attend(&queries, [keys, values], &Mask::All, &self.params)?;
        self.o_proj.forward(&mixed)
    }

    fn heads(&self, x: &Array, rope: Option<&Rope>) -> Result<Array> {
        let rope = rope.map(|rope| (rope, Positions::Offset(0)));
        let params = HeadsParams { size: self.size, norm: None, rotated_first: false, rope };
        self.ops.split_heads(x, &params)
    }
}
