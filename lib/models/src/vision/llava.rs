//! Vision towers of LLaVA (arXiv 2310.03744) and LLaVA-NeXT, whose pictures are tiles beside the whole:
//! CLIP or SigLIP.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{broadcast_to, concatenate};
use mlxk_core::{Architecture, Result as Loaded};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::activation::Activation;
use serde_json::{Value, json};

use super::pixtral;
use super::projector::{Projector, ProjectorArch};
use super::siglip::{Config, Member, Siglip};
use super::stated::{skipped_layers, text_hidden, tower_place};
use super::tower::{Features, Load, Picture, Tower};
use crate::checkpoint::config_error::invalid;
use crate::checkpoint::cursor::Cursor;

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] =
    &[(Architecture::Llava, load), (Architecture::LlavaNext, load)];

struct Llava {
    tower: Siglip,
    /// Tokens of each image before its patches that are dropped.
    dropped: i32,
    projector: Projector,
    /// Row after each row of the patches of tiles, if pictures have tiles.
    image_newline: Option<Array>,
}

/// Loads the tower of a `llava` or a `llava_next`. Pixtral's first conversions go by the name of LLaVA.
fn load(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let kind = config.pointer("/vision_config/model_type").and_then(Value::as_str);
    if kind == Some("pixtral") {
        return pixtral::load(config, w);
    }
    let clip = kind != Some("siglip_vision_model");
    let c = Config::read(config, defaults(clip))?;
    let skipped = skipped_layers(config, c.layers(), -2)?;
    let outs = text_hidden(config, 4096)?;
    let (place, member) = (tower_place(&w), Member { clip, skipped: Some(skipped) });
    let tower = Siglip::load(&mut w.at(place), &c, &member)?;
    let dropped = match config.get("vision_feature_select_strategy").and_then(Value::as_str) {
        None | Some("default") => 1,
        Some("full") => 0,
        Some(other) => {
            return Err(invalid(format!("`vision_feature_select_strategy` cannot be `{other}`")));
        }
    };
    let projector = ProjectorArch {
        names: ["linear_1", "linear_2"],
        ins: c.hidden_size,
        inner: outs,
        outs,
        activation: Activation::Gelu,
    };
    let image_newline = w.optional("image_newline", &[outs])?;
    let projector = Projector::load(&mut w.at("multi_modal_projector"), &projector)?;
    Ok(Box::new(Llava { tower, dropped, projector, image_newline }))
}

/// Defaults of `vision_config`.
fn defaults(clip: bool) -> Value {
    match clip {
        true => json!({
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_channels": 3, "image_size": 336, "patch_size": 14,
            "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu",
        }),
        false => json!({
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 16,
            "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
        }),
    }
}

impl Tower for Llava {
    fn encode(&self, picture: &Picture) -> Result<Features> {
        let h = self.tower.forward(picture.pixels, picture.grid)?;
        let h = mlx::columns(&h, self.dropped..h.dim(1))?.contiguous()?;
        let rows = self.projector.forward(&h)?;
        match &self.image_newline {
            None => Ok(rows.reshape(&[-1, rows.dim(2)])?.into()),
            Some(newline) => tiled(&rows, newline, picture).map(Features::from),
        }
    }
}

/// Rows of a picture in tiles: those of the whole picture, then the patches of all tiles side by side,
/// without padding, `newline` `[hidden]` after each of their rows. `rows` [1 + tiles, patches, hidden].
fn tiled(rows: &Array, newline: &Array, picture: &Picture) -> Result<Array> {
    let ([_, height, width], [down, across]) = (picture.grid, picture.tiles);
    let [kept_rows, kept_columns] = picture.kept;
    let hidden = rows.dim(2);
    if rows.dim(0) != 1 + down * across || rows.dim(1) < height * width {
        let message = format!("{:?} features, for {down} x {across} tiles", rows.shape());
        return Err(message.as_str().into());
    }
    let whole = mlx::entries(rows, 0..1)?.reshape(&[-1, hidden])?;
    // A class token that is kept is no part of the map of patches.
    let patches = mlx::columns(rows, rows.dim(1) - height * width..rows.dim(1))?;
    let map = mlx::entries(&patches, 1..rows.dim(0))?
        .reshape(&[down, across, height, width, hidden])?
        .transpose_axes(&[0, 2, 1, 3, 4])?
        .reshape(&[down * height, across * width, hidden])?;
    let [top, left] = [(down * height - kept_rows) / 2, (across * width - kept_columns) / 2];
    let map = mlx::entries(&map, top..top + kept_rows)?;
    let map = mlx::columns(&map, left..left + kept_columns)?;
    let ends = broadcast_to(newline, &[kept_rows, 1, hidden])?.as_dtype(map.dtype())?;
    let map = concatenate(&[map, ends], 1)?.reshape(&[-1, hidden])?;
    concatenate(&[whole, map], 0)?.contiguous()
}
