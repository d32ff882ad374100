//! MiMo-V2-Flash (arXiv 2601.02780): most layers have sliding-window attention, with their own
//! numbers of heads, rotary position embedding and attention sinks. Values are smaller than keys,
//! and only a part of a head rotates.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::moe_route::Score;
use mlxk_tensor::ops::rope::Rope;
use serde_json::Value;

use super::decoder::Decoder;
use super::{deepseek, llama};
use crate::checkpoint::config_error::{even, invalid, positive, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::config::{Config, renamed};
use crate::language::Language;
use crate::nn::attention::Sizes;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] =
    &[Spec { convert: Rules::CORRECTED, ..Spec::new(Architecture::MimoV2Flash, load) }];

/// Loads a `mimo_v2_flash` without its layers for multi-token prediction.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [("layernorm_epsilon", "rms_norm_eps"), ("sliding_window_size", "sliding_window")];
    let c = Config::read(&renamed(config, &names))?;
    let method: String = c.need("topk_method")?;
    if method != "noaux_tc" {
        return Err(unknown(format!("experts chosen by `{method}` cannot run yet")));
    }
    w.discard(|name| name.starts_with("model.mtp"));
    w.rename(&[("shared_expert", "shared_experts"), ("sinks", "attention_sink_bias")]);
    let full = Kind::read(&c, "", "add_full_attention_sink_bias")?;
    let sliding = Kind::read(&c, "swa_", "add_swa_attention_sink_bias")?;
    let (slides, mixed) = (flags(&c, "hybrid_layer_pattern")?, flags(&c, "moe_layer_freq")?);
    let mut arch = llama::base(&c, full.rope.clone(), false, c.rms_norm()?)?;
    for (layer, &slides) in arch.layers.iter_mut().zip(&slides) {
        let Kind { heads, rope } = if slides { &sliding } else { &full };
        (layer.heads, layer.rope) = (Some(*heads), Some(rope.clone()));
        layer.window = c.sliding_window.filter(|_| slides);
    }
    let moe = deepseek::moe(&c, deepseek::score(&c, Score::Sigmoid)?, 2)?;
    Decoder::load(arch.with_moe(&moe, |i| mixed[i]), w)
}

/// Attention of the layers of one kind.
struct Kind {
    heads: Sizes,
    rope: Rope,
}

impl Kind {
    /// Reads the kind whose fields have names that begin with `prefix`; the boolean field `sinks`
    /// tells if it has attention sinks.
    fn read(c: &Config, prefix: &str, sinks: &str) -> Result<Kind> {
        let names = ["num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim"]
            .map(|name| format!("{prefix}{name}"));
        let mut sizes = [0; 4];
        for (name, size) in names.iter().zip(&mut sizes) {
            *size = c.need(name)?;
            positive(&[(name, *size)])?;
        }
        let [heads, kv_heads, head_dim, value_dim] = sizes;
        even(heads, kv_heads)?;
        let part: f64 = c.need("partial_rotary_factor")?;
        let dims = c.rotary((head_dim as f64 * part) as usize)?;
        let theta = c.need(&format!("{prefix}rope_theta"))?;
        let heads = Sizes {
            heads,
            kv_heads,
            head_dim,
            value_dim,
            value_scale: c.get("attention_value_scale")?.unwrap_or(1.0),
            scale: (head_dim as f32).powf(-0.5),
            sinks: Some(c.need(sinks)?),
            ..llama::heads(c, c.rms_norm()?)
        };
        Ok(Kind { heads, rope: Rope::new(dims, false, theta, None, None)? })
    }
}

/// Flags of layers from the field `name`, which lists a number for each; 1 is true.
fn flags(c: &Config, name: &str) -> Result<Vec<bool>> {
    let flags: Vec<u8> = c.need(name)?;
    match flags.len() < c.num_hidden_layers {
        true => Err(invalid(format!("`{name}` does not name all layers"))),
        false => Ok(flags.iter().map(|&flag| flag == 1).collect()),
    }
}
