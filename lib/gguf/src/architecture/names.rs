//! Names that many architectures share. GGUF's are those of gguf-py's `constants.py`, MLX's those
//! under which mlx-lm saves a model.

use super::moves::{AS, FLAT, Name, PAIRS};
use crate::model::Model;

/// Before and after the layers.
pub const ENDS: &[Name] = &[
    Name("token_embd", "model.embed_tokens", AS),
    Name("output_norm", "model.norm", AS),
    Name("output", "lm_head", AS),
];

/// The two norms of a layer.
pub const NORMS: &[Name] =
    &[Name("attn_norm", "input_layernorm", AS), Name("ffn_norm", "post_attention_layernorm", AS)];

/// Norms behind attention and feed-forward layers only.
pub const LATE_NORMS: &[Name] = &[
    Name("post_attention_norm", "post_attention_layernorm", AS),
    Name("post_ffw_norm", "post_feedforward_layernorm", AS),
];

const FUSED: Name = Name(
    "attn_qkv",
    "self_attn.q_proj|self_attn.k_proj|self_attn.v_proj",
    AS.split(queries_keys_values),
);

/// Attention.
pub const ATTENTION: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", AS),
    Name("attn_k", "self_attn.k_proj", AS),
    Name("attn_v", "self_attn.v_proj", AS),
    Name("attn_output", "self_attn.o_proj", AS),
    Name("attn_q_norm", "self_attn.q_norm", AS),
    Name("attn_k_norm", "self_attn.k_norm", AS),
    FUSED,
];

/// Attention where the file keeps rotary pairs together.
pub const PAIRED: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", PAIRS),
    Name("attn_k", "self_attn.k_proj", PAIRS),
    Name("attn_v", "self_attn.v_proj", AS),
    Name("attn_output", "self_attn.o_proj", AS),
];

/// A gated feed-forward layer.
pub const MLP: &[Name] = &[
    Name("ffn_gate", "mlp.gate_proj", AS),
    Name("ffn_up", "mlp.up_proj", AS),
    Name("ffn_down", "mlp.down_proj", AS),
];

/// A feed-forward layer whose gate and values are one matrix.
pub const FUSED_MLP: &[Name] =
    &[Name("ffn_up", "mlp.gate_up_proj", AS), Name("ffn_down", "mlp.down_proj", AS)];

/// Experts, and what chooses them.
pub const EXPERTS: &[Name] = &[
    Name("ffn_gate_inp", "mlp.gate", AS),
    Name("ffn_gate_exps", "mlp.switch_mlp.gate_proj", AS),
    Name("ffn_up_exps", "mlp.switch_mlp.up_proj", AS),
    Name("ffn_down_exps", "mlp.switch_mlp.down_proj", AS),
    Name("ffn_gate_up_exps", "mlp.switch_mlp.gate_proj|mlp.switch_mlp.up_proj", AS),
    Name("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", FLAT),
];

/// The same, as descendants of Mixtral call it.
pub const SPARSE: &[Name] = &[
    Name("ffn_gate_inp", "block_sparse_moe.gate", AS),
    Name("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj", AS),
    Name("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj", AS),
    Name("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj", AS),
    Name("exp_probs_b.bias", "block_sparse_moe.e_score_correction_bias", FLAT),
];

/// Experts that every token goes to.
pub const SHARED: &[Name] = &[
    Name("ffn_gate_shexp", "mlp.shared_experts.gate_proj", AS),
    Name("ffn_up_shexp", "mlp.shared_experts.up_proj", AS),
    Name("ffn_down_shexp", "mlp.shared_experts.down_proj", AS),
];

/// The rows of queries, keys and values.
pub fn queries_keys_values(model: &Model) -> Vec<usize> {
    [model.heads, model.kv_heads, model.kv_heads].map(|heads| heads * model.head).into()
}
