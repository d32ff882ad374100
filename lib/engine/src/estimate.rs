//! How much memory a model will need, told before it is loaded.

use mlxk_core::{Facts, Result};
use mlxk_models::sketch;
use serde_json::Value;

/// The bytes that the weights of a model take, and its memory of `tokens` tokens.
///
/// On a CPU the memory of a text is of 32-bit floats. Memory of a size that does not grow with the text
/// counts as none.
///
/// # Errors
/// If config.json cannot be read.
pub fn estimate(facts: &Facts, tokens: u64, on_cpu: bool) -> Result<u64> {
    let config = sketch::config(facts)?;
    let headers = facts.weights().into_iter().filter_map(|shard| shard.header.as_ref().ok());
    let tensors = headers.flat_map(|header| &header.tensors);
    let weights: u64 = tensors.map(|tensor| tensor.range.end - tensor.range.start).sum();
    let element = if on_cpu { 4 } else { 2 };
    let elements = elements(config.get("text_config").unwrap_or(&config));
    Ok(weights.saturating_add(tokens.saturating_mul(elements.saturating_mul(element))))
}

/// The elements of all keys and values of a token, as far as `config` says.
fn elements(config: &Value) -> u64 {
    let number = |names: &[&str]| names.iter().find_map(|name| config.get(name)?.as_u64());
    let Some(heads) = number(&["num_attention_heads", "n_head"]).map(|heads| heads.max(1)) else {
        return 0;
    };
    if let Some(ratios) = config.get("compress_ratios").and_then(Value::as_array) {
        return compressed(config, ratios);
    }
    if let Some(latent) = number(&["kv_lora_rank"]) {
        let rotated = number(&["qk_rope_head_dim"]).unwrap_or_default();
        let chosen_by = number(&["index_head_dim"]).unwrap_or_default();
        let of_each = latent.saturating_add(rotated).saturating_add(chosen_by);
        return layers(config).saturating_mul(of_each);
    }
    let hidden = number(&["hidden_size", "n_embd"]).unwrap_or_default();
    let of_each = [
        layers(config),
        number(&["num_key_value_heads"]).unwrap_or(heads),
        number(&["head_dim"]).unwrap_or(hidden / heads),
    ];
    of_each.into_iter().fold(2, u64::saturating_mul)
}

/// The elements of compressed rows and their keys for each token: those of layers that make rows, each
/// of as many tokens as `ratios` says.
fn compressed(config: &Value, ratios: &[Value]) -> u64 {
    let list = |name: &str| config.get(name).and_then(Value::as_array).into_iter().flatten();
    let number = |name: &str| config.get(name).and_then(Value::as_u64).unwrap_or_default();
    let row = number("head_dim").saturating_add(number("index_head_dim"));
    let ratio = |layer: &Value| ratios.get(usize::try_from(layer.as_u64()?).ok()?)?.as_u64();
    let own = list("kv_source_layer_ids").filter_map(ratio).filter(|&ratio| ratio > 0);
    own.map(|ratio| row.div_ceil(ratio)).fold(0, u64::saturating_add)
}

/// The layers that have keys and values: not those of state spaces, convolutions and delta nets, and
/// not the last ones if these look at others'.
fn layers(config: &Value) -> u64 {
    let number = |name: &str| config.get(name).and_then(Value::as_u64);
    let attends = |kind: &Value| {
        let kind = kind.as_str().unwrap_or_default();
        kind == "*" || (kind.contains("attention") && kind != "linear_attention")
    };
    let named = |name: &&str| match config.get(*name)? {
        Value::Array(kinds) if kinds.iter().all(Value::is_number) => Some(kinds.len() as u64),
        Value::Array(kinds) => Some(kinds.iter().filter(|kind| attends(kind)).count() as u64),
        Value::String(kinds) => Some(kinds.matches('*').count() as u64),
        _ => None,
    };
    let all = number("num_hidden_layers").or(number("n_layer")).unwrap_or_default();
    let named = ["full_attn_idxs", "hybrid_override_pattern", "layers_block_type", "layer_types"]
        .iter()
        .find_map(named);
    let interval = number("full_attention_interval").or(number("attn_layer_period"));
    let interval = interval.filter(|&interval| interval > 0);
    let attending = named.or(interval.map(|interval| all / interval)).unwrap_or(all);
    attending.saturating_sub(number("num_kv_shared_layers").unwrap_or_default())
}
