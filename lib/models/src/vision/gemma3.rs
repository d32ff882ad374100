//! Vision tower of Gemma 3 (arXiv 2503.19786): SigLIP, whose patches are averaged to a fixed number of
//! tokens.

use mlx_rs::error::Result;
use mlxk_core::{Architecture, Result as Loaded};
use serde_json::{Value, json};

use super::merge::pooled;
use super::siglip::{Config, Member, Siglip};
use super::stated::{text_hidden, tower_place};
use super::tower::{Features, Load, Picture, Tower};
use crate::checkpoint::config_error::{fields, invalid};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::reshape::transposed;
use crate::nn::linear::Linear;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] = &[(Architecture::Gemma3, load)];

struct Gemma3 {
    tower: Siglip,
    /// Side of the squares of patches that become one token.
    pool: i32,
    mm_soft_emb_norm: Norm,
    mm_input_projection: Linear,
}

/// Loads the tower of a `gemma3`.
fn load(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let defaults = json!({
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "num_channels": 3, "image_size": 896, "patch_size": 14,
        "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
    });
    let c = Config::read(config, defaults)?;
    let tokens: usize = match config.get("mm_tokens_per_image") {
        None | Some(Value::Null) => 256,
        Some(stated) => fields(stated)?,
    };
    let across = tokens.isqrt();
    if across == 0 || across * across != tokens || !c.side().is_multiple_of(across) {
        let message = format!("`mm_tokens_per_image` cannot be {tokens}");
        return Err(invalid(message));
    }
    let outs = text_hidden(config, 2304)?;
    let (place, member) = (tower_place(&w), Member { clip: false, skipped: None });
    let tower = Siglip::load(&mut w.at(place), &c, &member)?;
    let mut w = w.at("multi_modal_projector");
    let stored = w.take("mm_input_projection_weight")?;
    w.expect("mm_input_projection_weight", &stored, &[stored.dtype], &[c.hidden_size, outs])?;
    w.put("mm_input_projection.weight", transposed(stored));
    let norm = NormArch { kind: NormKind::RmsLessOne, eps: c.layer_norm_eps };
    Ok(Box::new(Gemma3 {
        tower,
        pool: (c.side() / across) as i32,
        mm_soft_emb_norm: norm.load(&mut w, "mm_soft_emb_norm", c.hidden_size)?,
        mm_input_projection: Linear::load(&mut w, "mm_input_projection", outs, c.hidden_size)?,
    }))
}

impl Tower for Gemma3 {
    fn encode(&self, picture: &Picture) -> Result<Features> {
        let h = self.tower.forward(picture.pixels, picture.grid)?;
        let pooled = pooled(&h, picture.grid, self.pool)?;
        let rows = self.mm_input_projection.forward(&self.mm_soft_emb_norm.forward(&pooled)?)?;
        Ok(rows.into())
    }
}
