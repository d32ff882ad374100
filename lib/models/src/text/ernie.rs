//! ERNIE 4.5 as a mixture of experts.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};
use serde_json::Value;

use super::decoder::Decoder;
use super::llama;
use crate::checkpoint::config_error::unknown;
use crate::checkpoint::cursor::Cursor;
use crate::config::Config;
use crate::language::Language;
use crate::nn::mlp::MlpArch;
use crate::nn::moe::{MoeArch, SharedArch};
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::new(Architecture::Ernie45Moe, load_moe)];

/// Tensors that inference does not use: multi-token prediction, and load balancing of experts.
const LEFT: [&str; 5] = [
    "mtp_block.",
    "mtp_linear_proj.",
    "mtp_hidden_norm.",
    "mtp_emb_norm.",
    "e_score_correction_bias",
];

/// Loads an `ernie4_5_moe`.
fn load_moe(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let mut c = Config::read(config)?;
    c.rope_traditional = true;
    w.discard(|name| LEFT.iter().any(|part| name.contains(part)));
    w.rename(&[("shared_expert", "shared_experts")]);
    let first = bound(&c, "moe_layer_start_index", 0, Iterator::min)?;
    let last = bound(&c, "moe_layer_end_index", usize::MAX, Iterator::max)?;
    let every = c.get("moe_layer_interval")?.unwrap_or(1_usize);
    let mixed = |i: usize| (i + 1).is_multiple_of(every) && (first..=last).contains(&i);
    Decoder::load(llama::arch(&c, None, false)?.with_moe(&moe(&c)?, mixed), w)
}

fn moe(c: &Config) -> Result<MoeArch> {
    let score = match c.get::<String>("moe_gate_act")?.as_deref() {
        None | Some("softmax") => Score::Softmax,
        Some("sigmoid") => Score::Sigmoid,
        Some(other) => return Err(unknown(format!("experts chosen by `{other}` cannot run yet"))),
    };
    let inner = c.get("moe_intermediate_size")?.filter(|&n| n > 0).unwrap_or(c.intermediate_size);
    let shared = c.get("moe_num_shared_experts")?.unwrap_or(0_usize);
    let activation = Activation::Silu;
    let mlp =
        MlpArch { inner: inner.saturating_mul(shared), gated: true, fused: false, activation };
    let routing = Routing::new(c.get("moe_k")?.unwrap_or(1), score);
    Ok(MoeArch {
        count: c.need("moe_num_experts")?,
        inner,
        activation,
        routing: Routing { normalised: true, ..routing },
        gated: true,
        shared: (shared > 0).then_some(SharedArch { mlp, weighed: false }),
    })
}

/// Value of a field that is a number or a list; `best` picks from the list, `usual` is the default.
fn bound(
    c: &Config,
    name: &str,
    usual: usize,
    best: impl Fn(std::vec::IntoIter<usize>) -> Option<usize>,
) -> Result<usize> {
    match c.get::<Value>(name)? {
        Some(Value::Array(_)) => Ok(best(c.need::<Vec<usize>>(name)?.into_iter()).unwrap_or(usual)),
        _ => Ok(c.get(name)?.unwrap_or(usual)),
    }
}
