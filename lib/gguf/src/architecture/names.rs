//! Tensor names that several architectures share: in GGUF as in gguf-py's `constants.py`, in MLX as
//! mlx-lm saves them.

use super::transform::{FLAT, Name, PAIRS, SAME};
use crate::model::Model;

/// Tensors outside the layers.
pub const OUTER: &[Name] = &[
    Name("token_embd", "model.embed_tokens", SAME),
    Name("output_norm", "model.norm", SAME),
    Name("output", "lm_head", SAME),
];

/// Norms before attention and before the feed-forward layer.
pub const NORMS: &[Name] = &[
    Name("attn_norm", "input_layernorm", SAME),
    Name("ffn_norm", "post_attention_layernorm", SAME),
];

/// Norms after attention and after the feed-forward layer.
pub const POST_NORMS: &[Name] = &[
    Name("post_attention_norm", "post_attention_layernorm", SAME),
    Name("post_ffw_norm", "post_feedforward_layernorm", SAME),
];

const FUSED: Name =
    Name("attn_qkv", "self_attn.q_proj|self_attn.k_proj|self_attn.v_proj", SAME.split(qkv_rows));

/// Attention with rotary halves.
pub const ATTENTION: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", SAME),
    Name("attn_k", "self_attn.k_proj", SAME),
    Name("attn_v", "self_attn.v_proj", SAME),
    Name("attn_output", "self_attn.o_proj", SAME),
    Name("attn_q_norm", "self_attn.q_norm", SAME),
    Name("attn_k_norm", "self_attn.k_norm", SAME),
    FUSED,
];

/// Attention whose GGUF tensors have interleaved rotary pairs.
pub const PAIRED: &[Name] = &[
    Name("attn_q", "self_attn.q_proj", PAIRS),
    Name("attn_k", "self_attn.k_proj", PAIRS),
    Name("attn_v", "self_attn.v_proj", SAME),
    Name("attn_output", "self_attn.o_proj", SAME),
];

/// Gated feed-forward layer.
pub const MLP: &[Name] = &[
    Name("ffn_gate", "mlp.gate_proj", SAME),
    Name("ffn_up", "mlp.up_proj", SAME),
    Name("ffn_down", "mlp.down_proj", SAME),
];

/// Gated feed-forward layer with one matrix for gate and values.
pub const FUSED_MLP: &[Name] =
    &[Name("ffn_up", "mlp.gate_up_proj", SAME), Name("ffn_down", "mlp.down_proj", SAME)];

/// Experts and their router.
pub const EXPERTS: &[Name] = &[
    Name("ffn_gate_inp", "mlp.gate", SAME),
    Name("ffn_gate_exps", "mlp.switch_mlp.gate_proj", SAME),
    Name("ffn_up_exps", "mlp.switch_mlp.up_proj", SAME),
    Name("ffn_down_exps", "mlp.switch_mlp.down_proj", SAME),
    Name("ffn_gate_up_exps", "mlp.switch_mlp.gate_proj|mlp.switch_mlp.up_proj", SAME),
    Name("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", FLAT),
];

/// Experts and their router under Mixtral's names.
pub const MIXTRAL_EXPERTS: &[Name] = &[
    Name("ffn_gate_inp", "block_sparse_moe.gate", SAME),
    Name("ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj", SAME),
    Name("ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj", SAME),
    Name("ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj", SAME),
    Name("exp_probs_b.bias", "block_sparse_moe.e_score_correction_bias", FLAT),
];

/// Shared experts, which every token uses.
pub const SHARED_EXPERTS: &[Name] = &[
    Name("ffn_gate_shexp", "mlp.shared_experts.gate_proj", SAME),
    Name("ffn_up_shexp", "mlp.shared_experts.up_proj", SAME),
    Name("ffn_down_shexp", "mlp.shared_experts.down_proj", SAME),
];

/// Rows of the query, key and value matrices.
pub fn qkv_rows(model: &Model) -> Vec<usize> {
    [model.heads, model.kv_heads, model.kv_heads].map(|heads| heads * model.head).into()
}
