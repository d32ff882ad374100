//! Whisper (arXiv 2212.04356): an encoder of log-mel spectrograms, and a decoder of text whose layers
//! attend to its output.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlxk_core::Architecture;
use mlxk_tensor::cache::{Cache, Kv, Sequences, Slot};
use mlxk_tensor::ops::Ops;
use mlxk_tensor::ops::params::Mask;
use mlxk_tensor::weight::Weight;
use serde_json::Value;

use super::alignment_heads::{self, stored};
use super::whisper_names::sanitize;
use super::{Aligned, EncoderDecoder, Heard, Input, Speech};
use crate::audio::encoder::{Encoder, EncoderArch, NORM, mlp};
use crate::checkpoint::config_error::{invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::nn::attention::{Attention, Sharing, Sizes as AttentionSizes};
use crate::nn::cross_attention::CrossAttention;
use crate::nn::linear::Embedding;
use crate::nn::mlp::Mlp;
use crate::nn::norm::Norm;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec {
    sanitize: &[sanitize],
    convert: Rules { plain: &["conv1", "conv2"], ..Rules::NONE },
    ..Spec::speech(Architecture::Whisper, load)
}];

/// Names of layers and those of OpenAI's checkpoints.
const NAMES: [(&str, &str); 6] = [
    ("q_proj", "query"),
    ("k_proj", "key"),
    ("v_proj", "value"),
    ("o_proj", "out"),
    ("mlp.up_proj", "mlp1"),
    ("mlp.down_proj", "mlp2"),
];

/// Loads a `whisper`.
fn load(config: &Value, mut w: Cursor) -> mlxk_core::Result<Speech> {
    let dims = Dims::read(config)?;
    w.rename(&NAMES);
    let alignment_heads = match stored(&mut w)? {
        Some(heads) => heads,
        None => alignment_heads::of(dims.encoder.layers, dims.layers, dims.heads, dims.vocabulary),
    };
    let encoder = Encoder::load(w.at("encoder"), &dims.encoder)?;
    let input = Input::Mel { bands: dims.encoder.bands, frames: 2 * dims.encoder.positions };
    let sizes =
        super::Sizes { input, vocabulary: dims.vocabulary, tokens: dims.tokens, alignment_heads };
    let decoder = Decoder::load(w.at("decoder"), &dims)?;
    Ok(Speech::Attention(Box::new(Whisper { encoder, decoder, sizes })))
}

/// Sizes of a network.
struct Dims {
    encoder: EncoderArch,
    vocabulary: usize,
    tokens: usize,
    hidden: usize,
    heads: usize,
    layers: usize,
    inner: usize,
}

impl Dims {
    /// Reads config.json, whose fields are named by OpenAI or by transformers.
    fn read(config: &Value) -> mlxk_core::Result<Dims> {
        if let Some(other) = config.get("activation_function").filter(|name| *name != "gelu") {
            return Err(unknown(format!("activation {other} cannot run")));
        }
        if config.get("scale_embedding").is_some_and(|scaled| *scaled == Value::Bool(true)) {
            return Err(unknown("scaled embeddings cannot run".into()));
        }
        let inner = |state: usize, name: &str| match config.get(name) {
            Some(_) => size(config, [name, name]),
            None => Ok(4 * state),
        };
        let state = size(config, ["n_audio_state", "d_model"])?;
        let hidden = size(config, ["n_text_state", "d_model"])?;
        let encoder = EncoderArch {
            bands: size(config, ["n_mels", "num_mel_bins"])?,
            positions: size(config, ["n_audio_ctx", "max_source_positions"])?,
            hidden: state,
            heads: size(config, ["n_audio_head", "encoder_attention_heads"])?,
            inner: inner(state, "encoder_ffn_dim")?,
            layers: size(config, ["n_audio_layer", "encoder_layers"])?,
        };
        let dims = Dims {
            encoder,
            vocabulary: size(config, ["n_vocab", "vocab_size"])?,
            tokens: size(config, ["n_text_ctx", "max_target_positions"])?,
            hidden,
            heads: size(config, ["n_text_head", "decoder_attention_heads"])?,
            layers: size(config, ["n_text_layer", "decoder_layers"])?,
            inner: inner(hidden, "decoder_ffn_dim")?,
        };
        most_layers(dims.layers)?;
        most_layers(encoder.layers)?;
        if state != hidden || !state.is_multiple_of(2) {
            return Err(invalid(format!("vectors of {state} and {hidden} elements do not fit")));
        }
        for heads in [encoder.heads, dims.heads] {
            if !state.is_multiple_of(heads) {
                return Err(invalid(format!("{heads} heads cannot divide {state} elements")));
            }
        }
        Ok(dims)
    }
}

/// Positive number in the first of the fields `names` that exists.
fn size(config: &Value, names: [&str; 2]) -> mlxk_core::Result<usize> {
    let found = names.iter().find_map(|name| Some((name, config.get(name)?)));
    let Some((name, value)) = found else {
        return Err(invalid(format!("missing field `{}` or `{}`", names[0], names[1])));
    };
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    let number = number.ok_or_else(|| invalid(format!("`{name}` cannot be {value}")))?;
    positive(&[(name, number)])?;
    Ok(number)
}

/// Encoder and decoder.
struct Whisper {
    encoder: Encoder,
    decoder: Decoder,
    sizes: super::Sizes,
}

impl EncoderDecoder for Whisper {
    fn sizes(&self) -> &super::Sizes {
        &self.sizes
    }

    fn encode(&self, audio: &Array) -> Result<Array> {
        self.encoder.forward(audio)
    }

    fn hear(&self, states: &Array) -> Result<Heard> {
        let layers = self.decoder.blocks.iter();
        let layers = layers.map(|layer| layer.cross_attn.keys_values(states));
        Ok(Heard { layers: layers.collect::<Result<_>>()? })
    }

    fn cache(&self) -> Cache {
        let slot = |_: &Layer| Slot::Kv(Kv::new(None));
        Cache { slots: self.decoder.blocks.iter().map(slot).collect() }
    }

    fn forward(&self, ids: &Array, sequences: &mut Sequences, heard: &[&Heard]) -> Result<Array> {
        self.decoder.forward(ids, sequences, heard, &mut |_, _, _| Ok(()))
    }

    fn head(&self, h: &Array) -> Result<Array> {
        self.decoder.token_embedding.as_linear(&self.decoder.ln.forward(h)?)
    }

    fn align(&self, ids: &Array, heard: &Heard, heads: &[[usize; 2]]) -> Result<Aligned> {
        let mut cache = self.cache();
        let mut scores = vec![None; heads.len()];
        let mut sequence = Sequences::one(&mut cache, ids.dim(1));
        let mut look = |number: usize, layer: &Layer, queries: &Array| {
            let own = heads.iter().zip(&mut scores).filter(|([layer, _], _)| *layer == number);
            for ([_, head], place) in own {
                let keys = &heard.layers[number][0];
                *place = Some(layer.cross_attn.scores(queries, keys, *head)?);
            }
            Ok(())
        };
        let h = self.decoder.forward(ids, &mut sequence, &[heard], &mut look)?;
        let scores: Option<Vec<Array>> = scores.into_iter().collect();
        let scores = scores.ok_or_else(|| Exception::custom("an alignment head is missing"))?;
        Ok(Aligned { h, scores })
    }
}

/// Decoder of text.
struct Decoder {
    token_embedding: Embedding,
    /// Embeddings [tokens, hidden] of the positions.
    positional_embedding: Weight,
    tokens: usize,
    blocks: Vec<Layer>,
    ln: Norm,
    ops: &'static dyn Ops,
}

/// Layer: attention to the tokens before, attention to the audio, and a feed-forward network, each
/// after a norm and added to its input.
struct Layer {
    attn_ln: Norm,
    attn: Attention,
    cross_attn_ln: Norm,
    cross_attn: CrossAttention,
    mlp_ln: Norm,
    mlp: Mlp,
    ops: &'static dyn Ops,
}

/// Called with the number of a layer, the layer, and its queries [1, rows, hidden] to the audio.
type Look<'a> = &'a mut dyn FnMut(usize, &Layer, &Array) -> Result<()>;

impl Decoder {
    fn load(mut w: Cursor, dims: &Dims) -> mlxk_core::Result<Decoder> {
        let &Dims { vocabulary, hidden, tokens, .. } = dims;
        let blocks = (0..dims.layers).map(|i| Layer::load(&mut w.at(&format!("blocks.{i}")), dims));
        let blocks = blocks.collect::<mlxk_core::Result<_>>()?;
        let positions = w.floats("positional_embedding", &[tokens, hidden])?;
        Ok(Decoder {
            token_embedding: Embedding::load(&mut w, "token_embedding", vocabulary, hidden)?,
            positional_embedding: Weight::Dense(positions),
            tokens,
            blocks,
            ln: NORM.load(&mut w, "ln", hidden)?,
            ops: w.ops(),
        })
    }

    fn forward(
        &self,
        ids: &Array,
        sequences: &mut Sequences,
        heard: &[&Heard],
        look: Look,
    ) -> Result<Array> {
        let h = self.token_embedding.forward(ids)?;
        let h = self.ops.add(&h, &self.positions(&h, sequences)?)?;
        let mut layers = self.blocks.iter().enumerate();
        layers.try_fold(h, |h, (number, layer)| layer.forward(&h, sequences, number, heard, look))
    }

    /// Embeddings [1, rows, hidden] of the positions of the rows of `h`, of that shape.
    fn positions(&self, h: &Array, sequences: &mut Sequences) -> Result<Array> {
        let places = sequences.each_sequence([h], |[h], cache| {
            let first = cache.kv(0)?.offset();
            Ok(first..first + h.dim(1))
        })?;
        if let Some(last) = places.iter().find(|places| places.end as usize > self.tokens) {
            let message = format!("{} tokens of {}", last.end, self.tokens);
            return Err(Exception::custom(message));
        }
        let places: Vec<i32> = places.into_iter().flatten().collect();
        let places = Array::from_slice(&places, &[1, places.len() as i32]);
        self.ops.embedding(&self.positional_embedding, &places)
    }
}

impl Layer {
    fn load(w: &mut Cursor, dims: &Dims) -> mlxk_core::Result<Layer> {
        let &Dims { hidden, heads, inner, .. } = dims;
        Ok(Layer {
            attn_ln: NORM.load(w, "attn_ln", hidden)?,
            attn: Attention::load(&mut w.at("attn"), &attention(hidden, heads), None)?,
            cross_attn_ln: NORM.load(w, "cross_attn_ln", hidden)?,
            cross_attn: CrossAttention::load(&mut w.at("cross_attn"), hidden, heads)?,
            mlp_ln: NORM.load(w, "mlp_ln", hidden)?,
            mlp: Mlp::load(&mut w.at("mlp"), hidden, &mlp(inner), NORM)?,
            ops: w.ops(),
        })
    }

    /// Output [1, rows, hidden] of layer number `number` for `x` of that shape.
    fn forward(
        &self,
        x: &Array,
        sequences: &mut Sequences,
        number: usize,
        heard: &[&Heard],
        look: Look,
    ) -> Result<Array> {
        let h = self.attn.forward(&self.attn_ln.forward(x)?, sequences, number)?;
        let h = self.ops.add(x, &h)?;
        let queries = self.cross_attn.queries(&self.cross_attn_ln.forward(&h)?)?;
        look(number, self, &queries)?;
        let mut next = heard.iter();
        let mixed = sequences.each_sequence([&queries], |[queries], _| {
            let heard = next.next().ok_or_else(|| Exception::custom("a sequence hears nothing"))?;
            self.cross_attn.mix(queries, &heard.layers[number], &Mask::All)
        })?;
        let h = self.ops.add(&h, &self.cross_attn.output(&sequences.joined(mixed)?)?)?;
        self.ops.add(&h, &self.mlp.forward(&self.mlp_ln.forward(&h)?)?)
    }
}

/// Sizes of the attention to the tokens before.
fn attention(hidden: usize, heads: usize) -> AttentionSizes {
    let head_dim = hidden / heads;
    AttentionSizes {
        hidden,
        heads,
        kv_heads: heads,
        head_dim,
        value_dim: head_dim,
        value_scale: 1.0,
        scale: (head_dim as f32).sqrt().recip(),
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
