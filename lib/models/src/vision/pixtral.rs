//! Vision towers of Pixtral (arXiv 2410.07073) and Mistral 3, which merges squares of patches to one
//! token.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::{Architecture, Result as Loaded};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::params::Mask;
use mlxk_tensor::ops::rope::Rope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::merge::{MergeOrder, merged};
use super::patch_embed::{PatchArch, PatchEmbed, PatchOrder};
use super::projector::{Projector, ProjectorArch};
use super::stated::{skipped_layers, text_hidden, tower_place};
use super::tower::{Features, Load, Picture, Tower};
use super::vit::{Patches, Sizes, Vit, VitArch};
use crate::checkpoint::config_error::{fields, invalid, most_layers, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::given;
use crate::nn::linear::Linear;
use crate::nn::mlp::MlpArch;
use crate::nn::norm::{Norm, NormArch, NormKind};

/// Vision towers of the family, by architecture.
pub const TOWERS: &[(Architecture, Load)] =
    &[(Architecture::Mistral3, load_mistral3), (Architecture::Pixtral, load)];

/// Epsilon of the norms of the tower.
const EPS: f32 = 1e-5;
/// Largest side of a patch or of a square of patches.
const MAX_SIDE: usize = 1024;

/// Fields of `vision_config`.
#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    head_dim: Option<usize>,
    num_channels: usize,
    patch_size: usize,
    rope_theta: f64,
    hidden_act: String,
}

struct Pixtral {
    patch_conv: PatchEmbed,
    ln_pre: Norm,
    vit: Vit,
    merger: Option<Merger>,
    projector: Projector,
}

/// Norm and merger of patches between the tower and the projector.
struct Merger {
    norm: Norm,
    merging_layer: Linear,
    /// Side of the squares of patches that become one token.
    side: i32,
}

/// Loads the tower of a `pixtral`.
pub fn load(config: &Value, w: Cursor) -> Loaded<Box<dyn Tower>> {
    tower(config, w, None)
}

/// Loads the tower of a `mistral3`. Old conversions do not state `spatial_merge_size`.
fn load_mistral3(config: &Value, w: Cursor) -> Loaded<Box<dyn Tower>> {
    let side: usize = match config.get("spatial_merge_size") {
        None | Some(Value::Null) => 2,
        Some(stated) => fields(stated)?,
    };
    match side == 0 || side > MAX_SIDE {
        true => Err(invalid(format!("`spatial_merge_size` cannot be {side}"))),
        false => tower(config, w, Some(side)),
    }
}

fn tower(config: &Value, mut w: Cursor, merge: Option<usize>) -> Loaded<Box<dyn Tower>> {
    let c = Config::read(config)?;
    let (hidden, heads) = (c.hidden_size, c.num_attention_heads);
    let layers = c.num_hidden_layers - skipped_layers(config, c.num_hidden_layers, -1)?;
    let outs = text_hidden(config, 4096)?;
    let eps = config.pointer("/text_config/rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6);
    w.rename(&[
        ("blocks", "transformer.layers"),
        ("norm1", "attention_norm"),
        ("norm2", "ffn_norm"),
        ("attn", "attention"),
        ("mlp", "feed_forward"),
    ]);
    for layer in layers..c.num_hidden_layers {
        let name = format!("transformer.layers.{layer}.");
        w.discard(|other| other.contains(&name));
    }
    let head_dim = c.head_dim.unwrap_or(hidden / heads);
    let norm = NormArch { kind: NormKind::Rms, eps: EPS };
    let mlp = MlpArch {
        inner: c.intermediate_size,
        gated: true,
        fused: false,
        activation: activation(&c.hidden_act)?,
    };
    let vit = VitArch {
        head_dim,
        scale: (head_dim as f32).powf(-0.5),
        rope: Some(Rope::dealt(head_dim, c.rope_theta)),
        ..VitArch::new(&Sizes { hidden, heads, layers }, norm, mlp)
    };
    let patch = PatchArch {
        hidden,
        channels: c.num_channels,
        kernel: [1, c.patch_size, c.patch_size],
        order: PatchOrder::ChannelsLast,
    };
    let place = tower_place(&w);
    let mut at = w.at(place);
    let patch_conv = PatchEmbed::load(&mut at, "patch_conv", &patch)?;
    let ln_pre = norm.load(&mut at, "ln_pre", hidden)?;
    let vit = Vit::load(&mut at, &vit)?;
    let mut w = w.at("multi_modal_projector");
    let merger = |side: usize| {
        let norm = NormArch { kind: NormKind::Rms, eps: eps as f32 };
        Ok::<_, mlxk_core::Error>(Merger {
            norm: norm.load(&mut w, "norm", hidden)?,
            merging_layer: Linear::load(
                &mut w,
                "patch_merger.merging_layer",
                hidden,
                hidden * side * side,
            )?,
            side: side as i32,
        })
    };
    let merger = merge.map(merger).transpose()?;
    let projector = ProjectorArch {
        names: ["linear_1", "linear_2"],
        ins: hidden,
        inner: outs,
        outs,
        activation: Activation::Gelu,
    };
    let projector = Projector::load(&mut w, &projector)?;
    Ok(Box::new(Pixtral { patch_conv, ln_pre, vit, merger, projector }))
}

fn activation(name: &str) -> Loaded<Activation> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        other => Err(unknown(format!("activation `{other}` cannot run yet"))),
    }
}

impl Config {
    fn read(config: &Value) -> Loaded<Config> {
        let defaults = json!({
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_channels": 3, "patch_size": 16,
            "rope_theta": 10_000.0, "hidden_act": "silu",
        });
        let stated = config.get("vision_config").cloned().unwrap_or_else(|| json!({}));
        let c: Config = fields(&given(&stated, defaults))?;
        most_layers(c.num_hidden_layers)?;
        positive(&[
            ("hidden_size", c.hidden_size),
            ("intermediate_size", c.intermediate_size),
            ("num_attention_heads", c.num_attention_heads),
            ("num_channels", c.num_channels),
            ("patch_size", c.patch_size),
        ])?;
        let sides = [("num_channels", c.num_channels), ("patch_size", c.patch_size)];
        if let Some((name, side)) = sides.iter().find(|(_, side)| *side > MAX_SIDE) {
            return Err(invalid(format!("`{name}` cannot be {side}")));
        }
        let head_dim = c.head_dim.unwrap_or(c.hidden_size / c.num_attention_heads);
        // Half of the pairs rotate by height, half by width.
        match head_dim == 0 || !head_dim.is_multiple_of(4) || c.rope_theta <= 0.0 {
            true => Err(invalid(format!("heads of {head_dim} elements cannot rotate"))),
            false => Ok(c),
        }
    }
}

impl Tower for Pixtral {
    fn encode(&self, picture: &Picture) -> Result<Features> {
        let [frames, rows, columns] = picture.grid;
        if frames != 1 || picture.pixels.dim(0) != rows * columns {
            let message = format!("{} patches, for {rows} x {columns}", picture.pixels.dim(0));
            return Err(message.as_str().into());
        }
        let x = self.ln_pre.forward(&self.patch_conv.forward(picture.pixels)?)?;
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| [0, row, column]));
        let patches =
            Patches { positions: places.collect(), pictures: Mask::All, windows: Mask::All };
        let h = self.vit.forward(x, &patches)?;
        let h = self
            .merger
            .as_ref()
            .map_or(Ok(h.clone()), |merger| merger.forward(&h, picture.grid))?;
        let rows = self.projector.forward(&h)?;
        Ok(rows.reshape(&[-1, rows.dim(-1)])?.into())
    }
}

impl Merger {
    /// Rows [tokens, hidden] of the patches `x` [1, rows * columns, hidden] of `grid`.
    fn forward(&self, x: &Array, grid: [i32; 3]) -> Result<Array> {
        let squares = merged(&self.norm.forward(x)?, grid, self.side, MergeOrder::Elements)?;
        self.merging_layer.forward(&squares)
    }
}
