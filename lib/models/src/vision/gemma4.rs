//! Vision tower of Gemma 4: pictures of any shape, whose patches are averaged by squares to one token.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::{Architecture, Result as Loaded};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::Mask;
use mlxk_tensor::ops::rope::Rope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::merge::pooled;
use super::stated::text_hidden;
use super::tower::{Features, Load, Picture, Tower};
use super::vit::{Patches, Sizes, Vit, VitArch};
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::given;
use crate::nn::linear::Linear;
use crate::nn::mlp::MlpArch;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] = &[(Architecture::Gemma4, load)];

/// Number of channels of a picture.
const CHANNELS: usize = 3;
/// Largest side of a patch or of a square of patches.
const MAX_SIDE: usize = 1024;

/// Fields of `vision_config`.
#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f32,
    patch_size: usize,
    pooling_kernel_size: usize,
    position_embedding_size: usize,
    standardize: bool,
    rope_parameters: RopeParameters,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: f64,
}

struct Gemma4 {
    input_proj: Linear,
    /// Position embeddings [2, positions, hidden]: by column, and by row.
    position_embedding_table: Array,
    vit: Vit,
    pool: i32,
    hidden: f32,
    /// Bias and scale of the pooled rows.
    standard: Option<[Array; 2]>,
    norm: Norm,
    embedding_projection: Linear,
}

/// Loads the tower of a `gemma4`.
fn load(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let c = Config::read(config)?;
    let outs = text_hidden(config, 1536)?;
    w.discard(|name| name.contains("audio_tower.") || name.contains("embed_audio."));
    w.rename(&[
        ("blocks", "encoder.layers"),
        ("norm1", "input_layernorm"),
        ("norm1_after", "post_attention_layernorm"),
        ("norm2", "pre_feedforward_layernorm"),
        ("norm2_after", "post_feedforward_layernorm"),
        ("attn", "self_attn"),
    ]);
    let hidden = c.hidden_size;
    let norm = NormArch { kind: NormKind::Rms, eps: c.rms_norm_eps };
    let mlp = MlpArch {
        inner: c.intermediate_size,
        gated: true,
        fused: false,
        activation: Activation::GeluTanh,
    };
    let sizes = Sizes { hidden, heads: c.num_attention_heads, layers: c.num_hidden_layers };
    let vit = VitArch {
        head_dim: c.head_dim,
        norms_after: true,
        head_norm: Some(norm),
        scale: 1.0,
        rope: Some(Rope::halves(c.head_dim, c.rope_parameters.rope_theta)),
        ..VitArch::new(&sizes, norm, mlp)
    };
    let mut at = w.at("vision_tower");
    let patch = CHANNELS * c.patch_size * c.patch_size;
    let input_proj = Linear::load(&mut at, "patch_embedder.input_proj", hidden, patch)?;
    let table = [2, c.position_embedding_size, hidden];
    let table = at.floats("patch_embedder.position_embedding_table", &table)?;
    let vit = Vit::load(&mut at, &vit)?;
    let standard = match c.standardize {
        true => Some([at.floats("std_bias", &[hidden])?, at.floats("std_scale", &[hidden])?]),
        false => None,
    };
    let mut w = w.at("embed_vision");
    let bare = NormArch { kind: NormKind::Bare, ..norm };
    Ok(Box::new(Gemma4 {
        input_proj,
        position_embedding_table: table,
        vit,
        pool: c.pooling_kernel_size as i32,
        hidden: hidden as f32,
        standard,
        norm: bare.load(&mut w, "embedding_pre_projection_norm", hidden)?,
        embedding_projection: Linear::load(&mut w, "embedding_projection", outs, hidden)?,
    }))
}

impl Config {
    fn read(config: &Value) -> Loaded<Config> {
        let defaults = json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 16,
            "num_attention_heads": 12, "num_key_value_heads": 12, "head_dim": 64,
            "rms_norm_eps": 1e-6, "patch_size": 16, "pooling_kernel_size": 3,
            "position_embedding_size": 10_240, "standardize": false,
            "rope_parameters": {"rope_theta": 100.0},
        });
        let stated = config.get("vision_config").cloned().unwrap_or_else(|| json!({}));
        let c: Config = fields(&given(&stated, defaults))?;
        most_layers(c.num_hidden_layers)?;
        positive(&[
            ("hidden_size", c.hidden_size),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", c.num_attention_heads),
            ("head_dim", c.head_dim),
            ("patch_size", c.patch_size),
            ("pooling_kernel_size", c.pooling_kernel_size),
            ("position_embedding_size", c.position_embedding_size),
        ])?;
        let sides = [("patch_size", c.patch_size), ("pooling_kernel_size", c.pooling_kernel_size)];
        if let Some((name, side)) = sides.iter().find(|(_, side)| *side > MAX_SIDE) {
            return Err(invalid(format!("`{name}` cannot be {side}")));
        }
        if c.num_key_value_heads != c.num_attention_heads {
            return Err(unknown("towers whose heads share keys cannot run yet".into()));
        }
        match c.head_dim.is_multiple_of(4) && c.rope_parameters.rope_theta > 0.0 {
            true => Ok(c),
            false => Err(invalid(format!("heads of {} elements cannot rotate", c.head_dim))),
        }
    }
}

impl Tower for Gemma4 {
    fn encode(&self, picture: &Picture) -> Result<Features> {
        let [frames, rows, columns] = picture.grid;
        let (table, count) = (&self.position_embedding_table, rows * columns);
        if frames != 1 || picture.pixels.dim(0) != count || rows.max(columns) > table.dim(1) {
            let message = format!("{} patches, for {rows} x {columns}", picture.pixels.dim(0));
            return Err(message.as_str().into());
        }
        let number = |x| mlx::number(x, picture.pixels);
        let pixels = picture.pixels.subtract(number(0.5)?)?.multiply(number(2.0)?)?;
        let pixels = pixels.as_dtype(table.dtype())?.expand_dims(0)?;
        let positions = |axis: i32, of: fn(i32, i32) -> i32| {
            let all: Vec<i32> = (0..count).map(|patch| of(patch, columns)).collect();
            let own = mlx::entries(table, axis..axis + 1)?;
            own.take_axis(Array::from_slice(&all, &[count]), 1)
        };
        let by_column = positions(0, |patch, columns| patch % columns)?;
        let by_row = positions(1, |patch, columns| patch / columns)?;
        let x = self.input_proj.forward(&pixels)?.add(by_column)?.add(by_row)?;
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| [0, row, column]));
        let patches =
            Patches { positions: places.collect(), pictures: Mask::All, windows: Mask::All };
        let h = self.vit.forward(x, &patches)?;
        let pooled = pooled(&h.as_dtype(mlx_rs::Dtype::Float32)?, picture.grid, self.pool)?;
        let mut x = pooled.multiply(mlx::number(self.hidden.sqrt(), &pooled)?)?;
        x = x.as_dtype(h.dtype())?;
        if let Some([bias, scale]) = &self.standard {
            x = x.subtract(bias)?.multiply(scale)?;
        }
        Ok(self.embedding_projection.forward(&self.norm.forward(&x)?)?.into())
    }
}
