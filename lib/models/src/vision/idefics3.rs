//! Vision tower of Idefics 3 (arXiv 2408.12637) and SmolVLM (arXiv 2504.05299): SigLIP, whose patches
//! are merged by squares to one token.

use mlx_rs::error::Result;
use mlxk_core::{Architecture, Result as Loaded};
use serde_json::{Value, json};

use super::merge::{MergeOrder, merged};
use super::siglip::{Config, Member, Siglip};
use super::stated::text_hidden;
use super::tower::{Features, Load, Picture, Tower};
use crate::checkpoint::config_error::{fields, invalid};
use crate::checkpoint::cursor::Cursor;
use crate::nn::linear::Linear;

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] = &[(Architecture::Idefics3, load)];

/// Largest side of a square of patches.
const MAX_MERGE: usize = 64;

struct Idefics3 {
    tower: Siglip,
    /// Side of the squares of patches that become one token.
    merge: i32,
    proj: Linear,
}

/// Loads the tower of an `idefics3` or a `smolvlm`.
fn load(config: &Value, mut w: Cursor) -> Loaded<Box<dyn Tower>> {
    let defaults = json!({
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32,
        "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
    });
    let c = Config::read(config, defaults)?;
    let merge: usize = match config.get("scale_factor") {
        None | Some(Value::Null) => 2,
        Some(stated) => fields(stated)?,
    };
    if merge == 0 || merge > MAX_MERGE {
        return Err(invalid(format!("`scale_factor` cannot be {merge}")));
    }
    let outs = text_hidden(config, 4096)?;
    let tower =
        Siglip::load(&mut w.at("vision_model"), &c, &Member { clip: false, skipped: None })?;
    let ins = c.hidden_size * merge * merge;
    let proj = Linear::load(&mut w.at("connector.modality_projection"), "proj", outs, ins)?;
    Ok(Box::new(Idefics3 { tower, merge: merge as i32, proj }))
}

impl Tower for Idefics3 {
    fn encode(&self, picture: &Picture) -> Result<Features> {
        let h = self.tower.forward(picture.pixels, picture.grid)?;
        let cells = merged(&h, picture.grid, self.merge, MergeOrder::Patches)?;
        Ok(self.proj.forward(&cells)?.into())
    }
}
