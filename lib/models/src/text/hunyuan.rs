//! Hunyuan: Llama with norms of queries and keys after the rotation. Hunyuan-Large (arXiv
//! 2411.02265) shares keys and values between layers, and has mixtures with a shared expert.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::rope::Scaling;
use serde_json::Value;

use super::decoder::{Arch, Decoder};
use super::llama;
use crate::checkpoint::config_error::{invalid, positive};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::Checkpoint;
use crate::config::Config;
use crate::language::Language;
use crate::nn::attention::{Sharing, Sizes};
use crate::nn::mlp::MlpArch;
use crate::nn::moe::{MoeArch, SharedArch};
use crate::spec::Spec;
use mlxk_tensor::ops::activation::Activation;
use mlxk_tensor::ops::moe_route::{Routing, Score};

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec { sanitize: &[sanitize], ..Spec::new(Architecture::Hunyuan, load) },
    Spec::new(Architecture::HunyuanV1Dense, load_dense),
];

/// Loads a `hunyuan`, which is dense if it has one expert. Embeddings are tied unless the
/// checkpoint has a head.
fn load(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    w.rename(&[("mlp.gate", "mlp.gate.wg"), ("shared_expert", "shared_mlp")]);
    let mut arch = Arch { tied: None, ..arch(&c, &mut w)? };
    if c.get("use_cla")?.unwrap_or(false) {
        let factor = c.need("cla_share_factor")?;
        positive(&[("cla_share_factor", factor)])?;
        for (i, layer) in arch.layers.iter_mut().enumerate() {
            let sharing = if i % factor == 0 { Sharing::Lends } else { Sharing::Borrows };
            layer.heads = Some(Sizes { sharing, ..arch.heads });
        }
    }
    if c.need::<usize>("num_experts")? > 1 {
        for (i, layer) in arch.layers.iter_mut().enumerate() {
            layer.moe = Some(moe(&c, i)?);
        }
    }
    Decoder::load(arch, w)
}

/// Mixture of layer `layer`: routed experts weighted by the softmax over all experts, and a shared
/// expert whose width is a multiple of `intermediate_size`.
fn moe(c: &Config, layer: usize) -> Result<MoeArch> {
    let activation = Activation::Silu;
    let shared = |count: usize| {
        let inner = count.saturating_mul(c.intermediate_size);
        SharedArch { mlp: MlpArch { inner, gated: true, fused: false, activation }, weighed: false }
    };
    let shared = match c.need("use_mixed_mlp_moe")? {
        true => Some(shared(of_layer(c, "num_shared_expert", layer)?.unwrap_or(1))),
        false => None,
    };
    let chosen = of_layer(c, "moe_topk", layer)?.unwrap_or(1);
    Ok(MoeArch {
        count: c.need("num_experts")?,
        inner: of_layer(c, "moe_intermediate_size", layer)?.unwrap_or(c.intermediate_size),
        gated: true,
        activation,
        routing: Routing::new(chosen, Score::Softmax),
        shared,
    })
}

/// Value of the field `name` for a layer; the field is one number, or a list of one per layer.
fn of_layer(c: &Config, name: &str, layer: usize) -> Result<Option<usize>> {
    match c.get::<Value>(name)? {
        Some(Value::Array(list)) if list.len() <= layer => {
            Err(invalid(format!("`{name}` does not name all layers")))
        }
        Some(Value::Array(_)) => Ok(c.need::<Vec<usize>>(name)?.get(layer).copied()),
        _ => c.get(name),
    }
}

/// Loads a `hunyuan_v1_dense`.
fn load_dense(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    Decoder::load(arch(&Config::read(config)?, &mut w)?, w)
}

/// Architecture that all members share. `rope_scaling.alpha` enlarges the base of the rotary
/// position embedding.
fn arch(c: &Config, w: &mut Cursor) -> Result<Arch> {
    w.rename(&[("q_norm", "query_layernorm"), ("k_norm", "key_layernorm")]);
    let scaling: Option<Value> = c.get("rope_scaling")?.or(c.get("rope_parameters")?);
    let alpha = scaling.and_then(|scaling| scaling.get("alpha").and_then(Value::as_f64));
    let dims = c.head_dim() as f64;
    let theta = c.theta(Some(10_000.0))? * alpha.unwrap_or(1.0).powf(dims / (dims - 2.0));
    let rope = c.rope_of(theta, &Scaling::default())?;
    let mut arch = llama::base(c, rope, false, c.rms_norm()?)?;
    arch.heads.rotated_first = true;
    Ok(arch)
}

/// Splits the fused matrix of queries, keys and values, whose rows are grouped by kv head, and the
/// fused matrix of up and gate projections, in this order.
fn sanitize(all: &mut Checkpoint) -> Result<()> {
    let (heads, kv_heads): (usize, usize) =
        (all.number("num_attention_heads")?, all.number("num_key_value_heads")?);
    let shared = heads / kv_heads.max(1);
    all.split("qkv_proj", kv_heads, &[("q_proj", shared), ("k_proj", 1), ("v_proj", 1)])?;
    all.split("gate_and_up_proj", 1, &[("up_proj", 1), ("gate_proj", 1)])
}
