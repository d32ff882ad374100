//! Vision tower of InternVL (arXiv 2312.14238): InternViT, whose layers scale their outputs, and whose
//! patches are merged by squares to one token.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{broadcast_to, concatenate};
use mlxk_core::{Architecture, Result as Loaded};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::Mask;
use serde::Deserialize;
use serde_json::{Value, json};

use super::merge::{MergeOrder, merged};
use super::patch_embed::{PatchArch, PatchEmbed, PatchOrder};
use super::projector::{Projector, ProjectorArch};
use super::stated::text_hidden;
use super::tower::{Features, Load, Picture, Tower};
use super::vit::{Patches, Sizes, Vit, VitArch};
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::given;
use crate::nn::mlp::MlpArch;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] = &[(Architecture::InternVlChat, load)];

/// Epsilon of the norm before the projector.
const PROJECTOR_EPS: f32 = 1e-5;
/// Largest side of a patch, and number of channels.
const MAX_SIDE: usize = 1024;

/// Fields of `vision_config`.
#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    norm_type: String,
    qk_normalization: bool,
}

struct InternVl {
    patch_embedding: PatchEmbed,
    /// Class token [1, 1, hidden].
    class_embedding: Array,
    /// Positions [1, 1 + patches, hidden], that of the class token first.
    position_embedding: Array,
    side: i32,
    vit: Vit,
    /// Side of the squares of patches that become one token.
    merge: i32,
    norm: Norm,
    projector: Projector,
}

/// Loads the tower of an `internvl_chat`.
fn load(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let c = Config::read(config)?;
    let merge = merge(config, c.side())?;
    let outs = match config.get("llm_config") {
        Some(stated) => text_hidden(&json!({ "text_config": stated }), 4096)?,
        None => text_hidden(config, 4096)?,
    };
    let kind = match c.norm_type.as_str() {
        "layer_norm" => NormKind::Layer,
        "rms_norm" => NormKind::Rms,
        other => return Err(unknown(format!("`norm_type` `{other}` cannot run yet"))),
    };
    let activation = match c.hidden_act.as_str() {
        "gelu" => Activation::Gelu,
        "gelu_pytorch_tanh" => Activation::GeluTanh,
        other => return Err(unknown(format!("activation `{other}` cannot run yet"))),
    };
    let (hidden, side) = (c.hidden_size, c.side());
    let sizes = Sizes { hidden, heads: c.num_attention_heads, layers: c.num_hidden_layers };
    let mlp = MlpArch { inner: c.intermediate_size, gated: false, fused: false, activation };
    let norm = NormArch { kind, eps: c.layer_norm_eps };
    let vit = VitArch { fused: true, scaled: true, ..VitArch::new(&sizes, norm, mlp) };
    let patch = PatchArch {
        hidden,
        channels: c.num_channels,
        kernel: [1, c.patch_size, c.patch_size],
        order: PatchOrder::ChannelsLast,
    };
    w.rename(&[
        ("blocks", "encoder.layers"),
        ("attn.o_proj", "attn.proj"),
        ("up_proj", "fc1"),
        ("down_proj", "fc2"),
    ]);
    let mut at = w.at("vision_model");
    let vit = Vit::load(&mut at, &vit)?;
    let mut at = at.at("embeddings");
    let patch_embedding = PatchEmbed::load(&mut at, "patch_embedding", &patch)?;
    let class_embedding = at.floats("class_embedding", &[1, 1, hidden])?;
    let positions = [1, 1 + side * side, hidden];
    let position_embedding = at.floats("position_embedding", &positions)?;
    let ins = hidden * merge * merge;
    let mut at = w.at("mlp1");
    let norm = NormArch { kind: NormKind::Layer, eps: PROJECTOR_EPS }.load(&mut at, "0", ins)?;
    let projector =
        ProjectorArch { names: ["1", "3"], ins, inner: outs, outs, activation: Activation::Gelu };
    Ok(Box::new(InternVl {
        patch_embedding,
        class_embedding,
        position_embedding,
        side: side as i32,
        vit,
        merge: merge as i32,
        norm,
        projector: Projector::load(&mut at, &projector)?,
    }))
}

/// Side of the squares of patches that become one token, of images of `side` patches a side.
fn merge(config: &Value, side: usize) -> Loaded<usize> {
    let ratio = config.get("downsample_ratio").and_then(Value::as_f64).unwrap_or(0.5);
    let merge = (1.0 / ratio).round();
    match (1.0..=side as f64).contains(&merge) && side.is_multiple_of(merge as usize) {
        true => Ok(merge as usize),
        false => Err(invalid(format!("`downsample_ratio` cannot be {ratio}"))),
    }
}

impl Config {
    fn read(config: &Value) -> Loaded<Config> {
        let defaults = json!({
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_channels": 3, "image_size": 448, "patch_size": 14,
            "layer_norm_eps": 1e-6, "hidden_act": "gelu", "norm_type": "layer_norm",
            "qk_normalization": false,
        });
        let stated = config.get("vision_config").cloned().unwrap_or_else(|| json!({}));
        let mut stated = given(&stated, defaults);
        // Some state a height and a width.
        for side in ["image_size", "patch_size"] {
            if let Some(first) = stated[side].get(0).cloned() {
                stated[side] = first;
            }
        }
        let c: Config = fields(&stated)?;
        most_layers(c.num_hidden_layers)?;
        positive(&[
            ("hidden_size", c.hidden_size),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", c.num_attention_heads),
            ("num_channels", c.num_channels),
            ("image_size", c.image_size),
            ("patch_size", c.patch_size),
        ])?;
        if c.qk_normalization {
            return Err(unknown("towers with normed queries cannot run yet".into()));
        }
        let whole = c.hidden_size.is_multiple_of(c.num_attention_heads) && c.side() > 0;
        match whole && c.patch_size.max(c.num_channels) <= MAX_SIDE {
            true => Ok(c),
            false => Err(invalid("`vision_config` has sizes that no tower has".into())),
        }
    }

    /// Patches of a side of an image.
    fn side(&self) -> usize {
        self.image_size / self.patch_size
    }
}

impl Tower for InternVl {
    fn encode(&self, picture: &Picture) -> Result<Features> {
        let ([tiles, rows, columns], side) = (picture.grid, self.side);
        if [rows, columns] != [side; 2] || picture.pixels.dim(0) != tiles * side * side {
            let message = format!("{rows} x {columns} patches, for a tower of {side} x {side}");
            return Err(message.as_str().into());
        }
        let x = self.patch_embedding.forward(picture.pixels)?.reshape(&[tiles, side * side, -1])?;
        let class = broadcast_to(&self.class_embedding, &[tiles, 1, x.dim(2)])?;
        let x = concatenate(&[class, x], 1)?.add(&self.position_embedding)?;
        let tokens = 1 + side * side;
        let blocks = vec![tokens as usize; tiles as usize];
        let patches =
            Patches { positions: Vec::new(), windows: Mask::All, pictures: Mask::packed(&blocks) };
        let h = self.vit.forward(x.reshape(&[1, tiles * tokens, -1])?, &patches)?;
        let h = mlx::columns(&h.reshape(&[tiles, tokens, -1])?, 1..tokens)?;
        let squares = merged(&h, picture.grid, self.merge, MergeOrder::Patches)?;
        Ok(self.projector.forward(&self.norm.forward(&squares)?)?.into())
    }
}
