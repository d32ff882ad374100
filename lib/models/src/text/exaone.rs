//! EXAONE 3 (arXiv 2408.03541): Llama under the tensor names of GPT-2. EXAONE 4 (arXiv 2507.11407):
//! post-norms, and no rotary embedding in layers with full attention; the same in its mixture of
//! experts.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::moe_route::Score;
use serde_json::{Value, json};

use super::decoder::{Arch, Decoder, Norms};
use super::{deepseek, llama};
use crate::checkpoint::config_error::invalid;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::config::{Config, renamed};
use crate::language::Language;
use crate::spec::{Rules, Spec};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Exaone, load),
    Spec::new(Architecture::Exaone4, load_4),
    Spec {
        sanitize: &[sanitize_moe],
        convert: Rules::CORRECTED,
        ..Spec::new(Architecture::ExaoneMoe, load_moe)
    },
];

/// Loads an `exaone`.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [
        ("num_layers", "num_hidden_layers"),
        ("layer_norm_epsilon", "rms_norm_eps"),
        ("activation_function", "hidden_act"),
    ];
    let c = Config::read(&renamed(config, &names))?;
    w.rename(&[
        ("model", "transformer"),
        ("embed_tokens", "wte"),
        ("layers", "h"),
        ("input_layernorm", "ln_1"),
        ("post_attention_layernorm", "ln_2"),
        ("self_attn", "attn.attention"),
        ("o_proj", "out_proj"),
        ("gate_proj", "c_fc_0"),
        ("up_proj", "c_fc_1"),
        ("down_proj", "c_proj"),
        ("transformer.norm", "transformer.ln_f"),
    ]);
    Decoder::load(llama::arch(&c, None, false)?, w)
}

/// Loads an `exaone4`. `sliding_window_pattern` has a letter for each layer in turn, `L` for a
/// sliding window; without it all layers have full attention and a rotary embedding.
fn load_4(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let mut arch = Arch { norms: Norms::AFTER, ..llama::arch(&c, None, false)? };
    let pattern: Option<Value> = c.get("sliding_window_pattern")?;
    let slides: Box<dyn Fn(usize) -> bool> = match pattern {
        None => return Decoder::load(arch, w),
        Some(Value::String(letters)) if !letters.is_empty() => {
            Box::new(move |i| letters.as_bytes()[i % letters.len()] == b'L')
        }
        Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n > 0) => {
            let every = n.as_u64().unwrap_or(1) as usize;
            Box::new(move |i| !(i + 1).is_multiple_of(every))
        }
        Some(other) => return Err(invalid(format!("`sliding_window_pattern` cannot be {other}"))),
    };
    for (i, layer) in arch.layers.iter_mut().enumerate() {
        layer.window = c.window(i, slides(i))?;
        layer.rope = layer.rope.take().filter(|_| layer.window.is_some());
    }
    Decoder::load(arch, w)
}

/// Loads an `exaone_moe`; skips its layers for multi-token prediction.
fn load_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let names = [("num_experts", "n_routed_experts"), ("num_shared_experts", "n_shared_experts")];
    let defaults = json!({"norm_topk_prob": true, "routed_scaling_factor": 2.5});
    let c = Config::read_or(&renamed(config, &names), defaults)?;
    w.discard(|name| name.starts_with("mtp."));
    w.rename(&[("shared_expert", "shared_experts")]);
    let mut arch = llama::arch(&c, Some(1_000_000.0), false)?;
    if arch.layers.iter().any(|layer| layer.window.is_some()) {
        arch.layers.iter_mut().filter(|layer| layer.window.is_none()).for_each(|l| l.rope = None);
    }
    let mixed: Vec<bool> = c.need("is_moe_layer")?;
    let mixed = |i: usize| mixed.get(i).copied().unwrap_or_default();
    Decoder::load(arch.with_moe(&deepseek::moe(&c, Score::Sigmoid, 2)?, mixed), w)
}

/// Renames the score correction of the router, which transformers stores beside the router.
fn sanitize_moe(all: &mut Checkpoint) -> Result<()> {
    all.rename(|name| {
        let stem = name.strip_suffix(".mlp.e_score_correction_bias")?;
        Some(format!("{stem}.mlp.gate.e_score_correction_bias"))
    });
    Ok(())
}
