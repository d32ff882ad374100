//! A checkpoint that is not what its config.json says is refused in one line that names the tensor.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::collections::BTreeMap;

use mlxk_core::tensors::Dtype;
use model::{Draft, Tensor};
use serde_json::json;

const UP: &str = "model.layers.1.mlp.up_proj.weight";

#[test]
fn a_missing_tensor_is_named() {
    let mut draft = Draft::of("llama");
    draft.tensors.remove(UP);
    assert_eq!(draft.refused(), format!("{UP}: the tensor is missing"));
}

#[test]
fn a_missing_tensor_is_named_as_the_checkpoint_would_name_it() {
    for (case, tensor) in [
        ("apertus", "model.layers.0.mlp.act_fn.alpha_p"),
        ("gemma2", "model.layers.0.post_feedforward_layernorm.weight"),
        ("gemma3-hf", "language_model.model.norm.weight"),
        ("gpt2", "model.h.1.attn.c_attn.weight"),
        ("gpt2", "model.wpe.weight"),
        ("phi3", "model.layers.0.mlp.gate_up_proj.weight"),
        ("phi3", "model.layers.1.self_attn.qkv_proj.weight"),
        ("stablelm-parallel", "model.layers.0.self_attn.q_layernorm.norms.3.weight"),
    ] {
        let mut draft = Draft::of(case);
        assert!(draft.tensors.remove(tensor).is_some(), "{case} has no {tensor}");
        assert_eq!(draft.refused(), format!("{tensor}: the tensor is missing"), "{case}");
    }
}

#[test]
fn a_missing_tensor_of_a_checkpoint_in_another_form_is_named_as_mlx_would() {
    for (case, tensor, named) in [
        ("gpt2-hf", "h.1.mlp.c_fc.weight", "model.h.1.mlp.c_fc.weight"),
        (
            "gpt_neox-hf",
            "gpt_neox.layers.0.attention.query_key_value.weight",
            "model.h.0.attention.query_key_value.weight",
        ),
        ("mistral3-hf", "lm_head.weight", "language_model.lm_head.weight"),
    ] {
        let mut draft = Draft::of(case);
        assert!(draft.tensors.remove(tensor).is_some(), "{case} has no {tensor}");
        assert_eq!(draft.refused(), format!("{named}: the tensor is missing"), "{case}");
    }
}

#[test]
fn an_optional_tensor_of_some_layers_is_missing_in_the_others() {
    for (case, layers, tensor) in [
        ("qwen2", "model.layers", "self_attn.k_proj.bias"),
        ("qwen3", "model.layers", "self_attn.q_norm.weight"),
        ("gpt2", "model.h", "ln_2.bias"),
        ("gpt_neox", "model.h", "attention.query_key_value.bias"),
    ] {
        let mut draft = Draft::of(case);
        let (first, second) = (format!("{layers}.0.{tensor}"), format!("{layers}.1.{tensor}"));
        assert!(draft.tensors.remove(&second).is_some(), "{case} has no {second}");
        let refused = draft.refused();
        let part = tensor.split('.').next().unwrap();
        assert!(refused.starts_with(&format!("{layers}.1.{part}")), "{refused}");
        assert!(refused.contains("the tensor is missing; there is"), "{refused}: {first}");
    }
}

#[test]
fn a_fused_matrix_of_another_shape_is_named() {
    for (case, tensor, rows) in [
        ("phi3", "model.layers.0.self_attn.qkv_proj.weight", 64),
        ("phi3", "model.layers.1.mlp.gate_up_proj.weight", 128),
        ("internlm2", "model.layers.0.attention.wqkv.weight", 64),
        ("gpt_neox", "model.h.0.attention.query_key_value.weight", 96),
    ] {
        let mut draft = Draft::of(case);
        let tensor_of = draft.tensors.get_mut(tensor).unwrap();
        tensor_of.shape = vec![rows * 2, 16];
        let expected = format!("{tensor}: expected {rows} rows, found shape [{}, 16]", rows * 2);
        assert_eq!(draft.refused(), expected, "{case}");
    }
    let mut draft = Draft::of("gpt2-hf");
    draft.tensors.get_mut("h.0.mlp.c_fc.weight").unwrap().shape = vec![4096];
    let expected = "model.h.0.mlp.c_fc.weight: expected shape [128, 32], found [4096]";
    assert_eq!(draft.refused(), expected);
}

#[test]
fn a_text_beyond_the_learned_positions_is_an_error() {
    let (mut model, _dir) = Draft::of("gpt2").load().unwrap();
    assert!(model.logits(&[1; 64]).is_ok());
    let refused = model.logits(&[1; 65]).unwrap_err().to_string();
    assert!(refused.ends_with("the model knows 64 positions only"), "{refused}");
}

#[test]
fn tensors_without_use_are_named() {
    let mut draft = Draft::of("llama");
    draft.tensors.insert("model.extra".into(), Tensor::of(&[2], [0.0; 2]));
    assert_eq!(draft.refused(), "model.extra: the model has no use for this tensor");
    draft.tensors.insert("model.more".into(), Tensor::of(&[2], [0.0; 2]));
    let refused = draft.refused();
    assert!(refused.ends_with("(and 1 more: model.more)"), "{refused}");
}

#[test]
fn another_shape_is_told_beside_the_expected_one() {
    let mut draft = Draft::of("llama");
    draft.tensors.get_mut(UP).unwrap().shape = vec![32, 64];
    assert_eq!(draft.refused(), format!("{UP}: expected shape [64, 32], found [32, 64]"));
}

#[test]
fn another_type_is_told_beside_the_expected_ones() {
    let mut draft = Draft::of("llama");
    draft.tensors.get_mut(UP).unwrap().dtype = Dtype::I32;
    let refused = draft.refused();
    assert_eq!(refused, format!("{UP}: expected Float32 or Float16 or Bfloat16, found Int32"));
}

#[test]
fn a_bias_of_another_shape_is_named() {
    let mut draft = Draft::of("qwen2");
    let bias = "model.layers.0.self_attn.q_proj.bias";
    draft.tensors.get_mut(bias).unwrap().shape = vec![2, 16];
    assert_eq!(draft.refused(), format!("{bias}: expected shape [32], found [2, 16]"));
}

#[test]
fn packed_weights_of_no_known_width_are_named() {
    let mut draft = Draft::of("llama-q4");
    let weight = "model.layers.0.mlp.up_proj.weight";
    draft.tensors.get_mut(weight).unwrap().shape = vec![1024, 1];
    let refused = draft.refused();
    assert!(refused.starts_with(&format!("{weight}: expected rows of 64 ")), "{refused}");
}

#[test]
fn quantised_weights_without_scales_are_named() {
    let mut draft = Draft::of("llama-q4").with(
        "quantization",
        json!({"group_size": 64, "bits": 4, "model.layers.0.mlp.up_proj": true}),
    );
    draft.tensors.remove("model.layers.0.mlp.up_proj.scales");
    assert_eq!(draft.refused(), "model.layers.0.mlp.up_proj.scales: the tensor is missing");
}

#[test]
fn a_table_that_contradicts_the_tensors_is_refused() {
    let name = "model.layers.0.mlp.up_proj";
    let eight = json!({"group_size": 64, "bits": 4, name: {"group_size": 64, "bits": 8}});
    let refused = Draft::of("llama-q4").with("quantization", eight).refused();
    assert!(refused.contains("is not what config.json says"), "{refused}");
    let dense = json!({"group_size": 64, "bits": 4, name: false});
    let refused = Draft::of("llama-q4").with("quantization", dense).refused();
    assert!(refused.contains("found Uint32"), "{refused}");
}

#[test]
fn a_model_without_a_head_is_refused_if_it_says_it_has_one() {
    let mut draft = Draft::of("llama");
    draft.tensors.remove("lm_head.weight");
    assert_eq!(draft.refused(), "lm_head.weight: the tensor is missing");
}

#[test]
fn frequencies_that_old_checkpoints_carry_are_passed_over() {
    let mut draft = Draft::of("llama");
    let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    draft.tensors.insert(name.into(), Tensor::of(&[4], [0.0; 4]));
    draft.load().unwrap();
}

#[test]
fn a_missing_field_is_named() {
    let mut draft = Draft::of("llama");
    draft.config.remove("intermediate_size");
    assert_eq!(draft.refused(), "config.json: missing field `intermediate_size`");
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    for (key, value, named) in [
        ("rope_scaling", json!({"rope_type": "quux"}), "quux"),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0}), "rope_scaling.factor"),
        ("rope_scaling", json!({"rope_type": "yarn"}), "rope_scaling.factor"),
        ("rope_theta", json!(-1), "rope_theta"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("quantization", json!({"group_size": 32, "bits": 4, "mode": "mxfp3"}), "mxfp3"),
        ("layer_types", json!(["chunked_attention"]), "chunked_attention"),
        ("num_key_value_heads", json!(3), "4 query heads cannot share 3 key heads"),
        ("hidden_size", json!("many"), "hidden_size"),
        ("num_hidden_layers", json!(9_000_000_000_u64), "num_hidden_layers"),
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("num_attention_heads", json!(64), "head_dim"),
    ] {
        let refused = Draft::of("llama").with(key, value).refused();
        assert!(refused.contains(named), "{key}: {refused}");
    }
}

/// Cases of architectures whose layers are more than attention.
const KINDS: [&str; 15] = [
    "falcon_h1-normed",
    "gemma3n",
    "gemma4",
    "gemma4_text-moe",
    "granitemoehybrid",
    "kimi_linear",
    "lfm2_moe",
    "lfm2-biased",
    "mamba",
    "mamba2-untied",
    "mistral4",
    "nemotron_h-moe",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_next-mixed",
];

/// The first tensor of each name of a case, but those that a checkpoint may lack, and but the
/// embeddings, by which the place of all others is found.
fn samples(draft: &Draft) -> Vec<String> {
    const OPTIONAL: [&str; 5] =
        ["q_norm", "k_norm", "q_layernorm", "k_layernorm", "embed_tokens.w"];
    let worded = |part: &&str| part.parse::<usize>().is_err();
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    for name in draft.tensors.keys() {
        if !name.ends_with("bias") && !OPTIONAL.iter().any(|part| name.contains(part)) {
            let kind = name.split('.').filter(worded).collect::<Vec<_>>().join(".");
            kinds.entry(kind).or_insert(name.clone());
        }
    }
    kinds.into_values().collect()
}

/// The layer that the tensor `name` is of.
fn layer(name: &str) -> &str {
    name.rsplitn(3, '.').last().unwrap()
}

#[test]
fn what_a_layer_of_any_kind_lacks_is_named() {
    for case in KINDS {
        let whole = Draft::of(case);
        for name in samples(&whole) {
            let mut draft = whole.clone();
            draft.tensors.remove(&name);
            let refused = draft.refused();
            assert!(refused.starts_with(layer(&name)), "{case} without {name}: {refused}");
            assert!(!refused.contains('\n'), "{case} without {name}: {refused}");
        }
    }
}

#[test]
fn another_shape_in_a_layer_of_any_kind_is_named() {
    for case in KINDS {
        let whole = Draft::of(case);
        for name in samples(&whole) {
            let mut draft = whole.clone();
            draft.tensors.get_mut(&name).unwrap().shape.insert(0, 1);
            let refused = draft.refused();
            assert!(refused.starts_with(layer(&name)), "{case} with another {name}: {refused}");
            assert!(refused.contains("expected"), "{case} with another {name}: {refused}");
        }
    }
}

#[test]
fn an_expert_that_is_missing_or_unlike_the_others_is_named() {
    let expert = "model.layers.1.block_sparse_moe.experts.3.w2.weight";
    let mut draft = Draft::of("mixtral-hf");
    draft.tensors.get_mut(expert).unwrap().shape.reverse();
    assert!(draft.refused().starts_with(&format!("{expert}: expected shape")));
    draft.tensors.remove(expert);
    assert_eq!(draft.refused(), format!("{expert}: the tensor is missing"));
}

#[test]
fn experts_of_a_shape_that_they_cannot_have_are_named() {
    for (case, tensor, part) in [
        ("qwen3_moe-q4", "model.layers.0.mlp.switch_mlp.up_proj.weight", "expected rows of 64"),
        ("gpt_oss-mxfp4", "model.layers.0.mlp.experts.down_proj.weight", "expected rows of 64"),
        ("deepseek_v3", "model.layers.1.self_attn.embed_q.weight", "expected shape [4, 32, 32]"),
    ] {
        let mut draft = Draft::of(case);
        draft.tensors.insert(tensor.into(), Tensor::of(&[6, 4, 2], [0.0; 48]));
        let refused = draft.refused();
        assert!(refused.starts_with(&format!("{tensor}: {part}")), "{refused}");
    }
    for (case, tensor, named) in [
        ("gpt_oss-hf", "mlp.experts.gate_up_proj_blocks", "mlp.experts.gate_proj.weight: expected"),
        (
            "granitemoe-hf",
            "block_sparse_moe.input_linear.weight",
            "block_sparse_moe.switch_mlp.gate_proj.weight: expected shape [6, ",
        ),
    ] {
        let mut draft = Draft::of(case);
        let name = format!("model.layers.1.{tensor}");
        assert!(draft.tensors.insert(name, Tensor::of(&[6, 4, 2], [0.0; 48])).is_some());
        let refused = draft.refused();
        assert!(refused.starts_with(&format!("model.layers.1.{named}")), "{refused}");
    }
}

#[test]
fn experts_that_no_token_can_choose_are_refused() {
    let chosen = Draft::of("mixtral").with("num_experts_per_tok", 7).refused();
    assert_eq!(chosen, "config.json: a token cannot run through 7 of 6 experts");
    let groups = Draft::of("deepseek_v3").with("n_group", 3).refused();
    assert_eq!(groups, "config.json: 2 of 3 groups of experts cannot be chosen from");
}

#[test]
fn layers_that_cannot_look_at_what_others_make_are_refused() {
    let ratios = vec![0, 2, 4, 2, 2, 0];
    for (draft, why) in [
        (
            Draft::of("deepseek_v41").with("compress_ratios", ratios),
            "layer 2 looks at rows of another length than it chooses",
        ),
        (Draft::of("deepseek_v41").with("o_groups", 3), "heads cannot be 3 groups"),
        (Draft::of("deepseek_v41").with("qk_rope_head_dim", 7), "`qk_rope_head_dim` cannot be 7"),
        (Draft::of("deepseek_v32").with("index_head_dim", 8), "`index_head_dim` cannot be 8"),
    ] {
        assert_eq!(draft.refused(), format!("config.json: {why}"));
    }
}

#[test]
fn scales_of_other_codes_than_there_are_are_refused() {
    let mut draft = Draft::of("deepseek_v41-hf");
    draft.tensors.get_mut("layers.0.attn.wq_a.scale").unwrap().shape.reverse();
    let refused = draft.refused();
    let why = "layers.0.attn.wq_a.weight: expected a scale for 32 codes of 8 or 4 bits";
    assert!(refused.starts_with(why), "{refused}");
}

#[test]
fn scales_of_another_type_than_the_packing_has_are_refused() {
    let scales = "model.layers.0.mlp.up_proj.scales";
    let mut draft = Draft::of("llama-mxfp4");
    let shape = draft.tensors[scales].shape.clone();
    let count: usize = shape.iter().product();
    draft.tensors.insert(scales.into(), Tensor::of(&shape, vec![1.0; count]));
    let refused = draft.refused();
    assert!(refused.contains("model.layers.0.mlp.up_proj"), "{refused}");
}
