//! Forms of a model that must come to the same result as another, or to one known otherwise.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use mlxk_core::tensors::Dtype;
use mlxk_processor::Sampling;
use model::{Draft, GREEDY, Tensor, apart};
use serde_json::{Value, json};

const PROMPT: [u32; 12] = [71, 294, 35, 133, 63, 256, 233, 244, 197, 110, 51, 252];

fn logits(draft: &Draft) -> Vec<f32> {
    let (mut model, _dir) = draft.load().unwrap();
    model.logits(&PROMPT).unwrap()
}

/// Packs a matrix as MLX's affine quantisation does: the lowest bits first, over word boundaries.
/// Returns the packed weights, the scales and the biases, and the matrix that they stand for.
fn quantised(matrix: &Tensor, bits: usize, group: usize) -> [Tensor; 4] {
    let [rows, columns] = matrix.shape[..] else { panic!("not a matrix") };
    let (mut packed, mut scales, mut biases, mut plain) = (vec![], vec![], vec![], vec![]);
    for row in matrix.elements().chunks(columns) {
        let mut words = vec![0_u32; columns * bits / 32];
        for (g, weights) in row.chunks(group).enumerate() {
            let least = weights.iter().copied().fold(f32::MAX, f32::min);
            let most = weights.iter().copied().fold(f32::MIN, f32::max);
            let scale = (most - least) / ((1 << bits) - 1) as f32;
            scales.push(scale);
            biases.push(least);
            for (i, weight) in weights.iter().enumerate() {
                let q = ((weight - least) / scale).round() as u64;
                plain.push(q as f32 * scale + least);
                let at = (g * group + i) * bits;
                words[at / 32] |= (q << (at % 32)) as u32;
                if at % 32 + bits > 32 {
                    words[at / 32 + 1] |= (q >> (32 - at % 32)) as u32;
                }
            }
        }
        packed.extend(words);
    }
    let weight = Tensor {
        dtype: Dtype::U32,
        shape: vec![rows, columns * bits / 32],
        bytes: packed.into_iter().flat_map(u32::to_le_bytes).collect(),
    };
    let groups = [rows, columns / group];
    [
        weight,
        Tensor::of(&groups, scales),
        Tensor::of(&groups, biases),
        Tensor::of(&[rows, columns], plain),
    ]
}

/// A llama wide enough for every size of group, with random weights.
fn wide() -> Draft {
    let mut draft = Draft::of("llama")
        .with("hidden_size", 128)
        .with("intermediate_size", 256)
        .with("num_hidden_layers", 2);
    let mut state = 1_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.3
    };
    draft.tensors.retain(|name, _| !name.contains("layers.2.") && !name.contains("layers.3."));
    for (name, tensor) in &mut draft.tensors {
        let grown = |n: usize| if [32, 64, 16].contains(&n) { n * 4 } else { n };
        let shape: Vec<usize> = tensor.shape.iter().map(|&n| grown(n)).collect();
        let count = shape.iter().product();
        let is_norm = name.ends_with("norm.weight");
        *tensor = Tensor::of(&shape, (0..count).map(|_| if is_norm { 1.0 } else { random() }));
    }
    draft
}

/// The experts of a gpt_oss as transformers has them: [experts, ins, outs], gates and what they let
/// pass in turns.
fn in_training(draft: &mut Draft) {
    for layer in 0.. {
        let of = |part: &str| format!("model.layers.{layer}.mlp.experts.{part}");
        let mut take = |part: &str| draft.tensors.remove(&of(part));
        let (Some(gate), Some(up)) = (take("gate_proj.weight"), take("up_proj.weight")) else {
            break;
        };
        let [gate_bias, up_bias, down, down_bias] =
            ["gate_proj.bias", "up_proj.bias", "down_proj.weight", "down_proj.bias"]
                .map(|part| take(part).unwrap());
        let [count, inner, hidden] = gate.shape[..] else { panic!("experts are stacked") };
        let (gates, ups) = (gate.elements(), up.elements());
        let element = |at: usize| {
            let (row, column) = (at / (2 * inner), at % (2 * inner));
            let (expert, x) = (row / hidden, row % hidden);
            let all = if column % 2 == 0 { &gates } else { &ups };
            all[(expert * inner + column / 2) * hidden + x]
        };
        let both =
            Tensor::of(&[count, hidden, 2 * inner], (0..count * hidden * 2 * inner).map(element));
        let (gates, ups, downs) = (gate_bias.elements(), up_bias.elements(), down.elements());
        let bias =
            Tensor::of(&[count, 2 * inner], gates.iter().zip(&ups).flat_map(|(g, u)| [*g, *u]));
        let turned = (0..count * inner * hidden).map(|at| {
            let (expert, x, y) = (at / (inner * hidden), at / hidden % inner, at % hidden);
            downs[(expert * hidden + y) * inner + x]
        });
        let down = Tensor::of(&[count, inner, hidden], turned);
        for (part, tensor) in [
            ("gate_up_proj", both),
            ("gate_up_proj_bias", bias),
            ("down_proj", down),
            ("down_proj_bias", down_bias),
        ] {
            draft.tensors.insert(of(part), tensor);
        }
    }
}

#[test]
fn a_gpt_oss_of_plain_numbers_is_the_same_in_both_forms() {
    let draft = Draft::of("gpt_oss");
    let (mut model, _dir) = draft.load().unwrap();
    let expected = model.logits(&[5, 1, 300, 7]).unwrap();
    let mut other = draft.clone();
    in_training(&mut other);
    assert_ne!(other.tensors.len(), draft.tensors.len());
    let (mut model, _dir) = other.load().unwrap();
    assert_eq!(model.logits(&[5, 1, 300, 7]).unwrap(), expected);
}

#[test]
fn quantised_matrices_give_what_the_matrices_they_stand_for_give() {
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            let (mut packed, mut dense) = (wide(), wide());
            for name in wide().tensors.keys().filter(|name| !name.contains("norm")) {
                let base = name.strip_suffix(".weight").unwrap();
                let [weight, scales, biases, plain] = quantised(&dense.tensors[name], bits, group);
                packed.tensors.insert(name.clone(), weight);
                packed.tensors.insert(format!("{base}.scales"), scales);
                packed.tensors.insert(format!("{base}.biases"), biases);
                dense.tensors.insert(name.clone(), plain);
            }
            let packed = packed.with("quantization", json!({"group_size": group, "bits": bits}));
            let apart = apart(&logits(&dense), &logits(&packed));
            assert!(apart < 1e-4, "{bits} bits, groups of {group}: {apart} apart");
        }
    }
}

#[test]
fn layers_may_be_quantised_each_in_its_own_way() {
    let (mut packed, mut dense) = (wide(), wide());
    let mut table = json!({"group_size": 64, "bits": 4, "lm_head": false});
    for (base, bits, group) in
        [("model.layers.0.mlp.up_proj", 8, 32), ("model.embed_tokens", 6, 128)]
    {
        let name = format!("{base}.weight");
        let [weight, scales, biases, plain] = quantised(&dense.tensors[&name], bits, group);
        packed.tensors.insert(name.clone(), weight);
        packed.tensors.insert(format!("{base}.scales"), scales);
        packed.tensors.insert(format!("{base}.biases"), biases);
        dense.tensors.insert(name, plain);
        table[base] = json!({"group_size": group, "bits": bits, "mode": "affine"});
    }
    assert!(apart(&logits(&dense), &logits(&packed.with("quantization", table))) < 1e-4);
}

#[test]
fn sixteen_bit_floats_give_nearly_what_their_originals_give() {
    let mut draft = Draft::of("llama");
    let whole = logits(&draft);
    for tensor in draft.tensors.values_mut() {
        let half = |x: f32| ((x.to_bits() + 0x8000) >> 16) as u16;
        tensor.bytes = tensor.elements().into_iter().flat_map(|x| half(x).to_le_bytes()).collect();
        tensor.dtype = Dtype::BF16;
    }
    let apart = apart(&whole, &logits(&draft));
    assert!(apart > 0.0 && apart < 0.05, "{apart}");
}

#[test]
fn every_layer_may_have_biases() {
    let plain = logits(&Draft::of("llama"));
    for (layer, size) in [("self_attn.o_proj", 32), ("mlp.gate_proj", 64), ("mlp.down_proj", 32)] {
        let mut draft = Draft::of("llama");
        let mut bias = |x: f32| {
            for i in 0..4 {
                let name = format!("model.layers.{i}.{layer}.bias");
                draft.tensors.insert(name, Tensor::of(&[size], vec![x; size]));
            }
            logits(&draft)
        };
        assert_eq!(bias(0.0), plain, "{layer}");
        assert!(apart(&bias(0.5), &plain) > 1e-3, "{layer}");
    }
}

#[test]
fn a_window_as_long_as_the_text_changes_nothing_and_a_shorter_one_does() {
    let full = logits(&Draft::of("mistral"));
    let within = |window: u32| logits(&Draft::of("mistral").with("sliding_window", window));
    assert!(apart(&full, &within(12)) < 1e-5);
    assert!(apart(&full, &within(5)) > 1e-3);
}

#[test]
fn layers_have_the_windows_that_their_makers_gave_them() {
    for case in ["gemma2", "phi3", "starcoder2"] {
        let within = |window: u32| logits(&Draft::of(case).with("sliding_window", window));
        assert!(apart(&within(4096), &within(5)) > 1e-3, "{case}");
    }
}

/// Beyond 256 tokens a window's cache drops what it no longer needs; no chunking may show that.
#[test]
fn a_window_sees_the_same_however_the_text_is_cut() {
    let prompt: Vec<u32> = (0..700).map(|i| i * 37 % 320).collect();
    let (mut model, _dir) = Draft::of("mistral").with("sliding_window", 40).load().unwrap();
    let mut run = |chunk| {
        model.forward.prefill_chunk = chunk;
        model.logits(&prompt).unwrap()
    };
    let whole = run(2048);
    for chunk in [1, 33, 256, 300] {
        assert!(apart(&whole, &run(chunk)) < 1e-4, "chunks of {chunk}");
    }
}

#[test]
fn a_window_counts_the_token_itself() {
    let (mut narrow, _dir) = Draft::of("mistral").with("sliding_window", 1).load().unwrap();
    let alone = narrow.logits(&PROMPT[11..]).unwrap();
    // Each token sees only itself, so with rotary positions the others make no difference.
    assert!(apart(&alone, &narrow.logits(&PROMPT).unwrap()) < 1e-4);
}

#[test]
fn only_the_layers_that_say_so_have_a_window() {
    let draft = |types: [&str; 4]| {
        Draft::of("llama").with("sliding_window", 5).with("layer_types", types.to_vec())
    };
    let (full, sliding) = ("full_attention", "sliding_attention");
    let plain = logits(&Draft::of("llama"));
    assert_eq!(logits(&draft([full; 4])), plain);
    assert!(apart(&logits(&draft([full, sliding, full, full])), &plain) > 1e-4);
}

#[test]
fn a_qwen_uses_its_window_only_if_told_to() {
    let plain = logits(&Draft::of("qwen3"));
    let stated = || Draft::of("qwen3").with("sliding_window", 5).with("max_window_layers", 2);
    assert_eq!(logits(&stated().with("use_sliding_window", false)), plain);
    assert!(apart(&logits(&stated().with("use_sliding_window", true)), &plain) > 1e-4);
    let none = stated().with("use_sliding_window", true).with("max_window_layers", 4);
    assert_eq!(logits(&none), plain);
}

#[test]
fn position_embeddings_are_found_under_both_names() {
    let scaling = json!({"rope_type": "linear", "factor": 4.0});
    let old = Draft::of("llama").with("rope_scaling", scaling).with("rope_theta", 500.0);
    let nested = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0});
    let mut new = Draft::of("llama").with("rope_parameters", nested);
    new.config.remove("rope_theta");
    assert_eq!(logits(&old), logits(&new));
    assert!(apart(&logits(&old), &logits(&Draft::of("llama"))) > 1e-4);
}

#[test]
fn position_embeddings_that_stretch_only_long_texts_leave_short_ones() {
    let plain = logits(&Draft::of("llama"));
    let dynamic = json!({"type": "dynamic", "factor": 4.0});
    let draft = || Draft::of("llama").with("rope_scaling", dynamic.clone());
    assert_eq!(logits(&draft()), plain);
    assert!(apart(&logits(&draft().with("max_position_embeddings", 8)), &plain) > 1e-4);
    let yarn = json!({"type": "yarn", "factor": 1.0});
    assert!(apart(&logits(&Draft::of("llama").with("rope_scaling", yarn)), &plain) < 1e-5);
}

#[test]
fn a_stated_attention_factor_takes_the_place_of_what_yarn_computes() {
    let of = |more: Value| {
        let mut yarn =
            json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32});
        yarn.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        logits(&Draft::of("llama").with("rope_scaling", yarn))
    };
    let none = of(json!({"mscale": 1.0, "mscale_all_dim": 1.0}));
    assert_eq!(of(json!({"attention_factor": 1.0})), none);
    let computed = of(json!({}));
    assert!(apart(&of(json!({"attention_factor": 0.1 * 4f64.ln() + 1.0})), &computed) < 1e-6);
    assert!(apart(&computed, &none) > 1e-4);
}

#[test]
fn gates_of_elements_that_are_alike_are_those_of_their_heads() {
    let by_head = Draft::of("laguna");
    let mut by_element = by_head.clone().with("gating", "per-element");
    for (name, tensor) in &mut by_element.tensors {
        if name.ends_with(".g_proj.weight") {
            let rows: Vec<f32> = tensor.elements();
            let rows = rows.chunks(tensor.shape[1]).flat_map(|row| row.repeat(16));
            *tensor =
                Tensor::of(&[tensor.shape[0] * 16, tensor.shape[1]], rows.collect::<Vec<_>>());
        }
    }
    assert!(apart(&logits(&by_head), &logits(&by_element)) < 1e-6);
    let refused = by_head.with("gating", "per-layer").refused();
    assert!(refused.contains("`gating`"), "{refused}");
}

#[test]
fn layers_without_a_mixture_are_stated_in_either_way() {
    let stated = logits(&Draft::of("laguna"));
    let mut draft = Draft::of("laguna").with("mlp_only_layers", vec![0, 3]);
    draft.config.remove("mlp_layer_types");
    assert_eq!(logits(&draft), stated);
}

#[test]
fn a_part_of_a_head_may_rotate() {
    let plain = logits(&Draft::of("llama"));
    assert!(apart(&logits(&Draft::of("llama").with("partial_rotary_factor", 0.5)), &plain) > 1e-4);
}

#[test]
fn every_fourth_layer_of_a_smollm3_has_no_positions_unless_it_says_which() {
    let mut draft = Draft::of("smollm3");
    let stated = logits(&draft);
    draft.config.remove("no_rope_layers");
    assert_eq!(logits(&draft), stated);
    assert!(apart(&logits(&draft.with("no_rope_layer_interval", 2)), &stated) > 1e-4);
}

#[test]
fn a_head_in_the_checkpoint_is_used_even_if_the_model_says_it_is_tied() {
    let untied = logits(&Draft::of("llama"));
    assert_eq!(logits(&Draft::of("llama").with("tie_word_embeddings", true)), untied);
}

#[test]
fn the_cache_remembers_what_a_longer_prompt_would_say() {
    let (mut model, _dir) = Draft::of("qwen3").load().unwrap();
    let ids: Vec<u32> =
        model.tokens(&PROMPT, &GREEDY).unwrap().take(300).map(Result::unwrap).collect();
    for n in [1, 100, 299] {
        let longer = [&PROMPT, &ids[..n]].concat();
        let next = model.tokens(&longer, &GREEDY).unwrap().next().unwrap().unwrap();
        assert_eq!(next, ids[n], "after {n} tokens");
    }
}

#[test]
fn prompts_that_no_model_can_continue_are_refused() {
    let (mut model, _dir) = Draft::of("llama").load().unwrap();
    let refused = |prompt: &[u32], model: &mut mlxk_engine::Model| {
        model.tokens(prompt, &GREEDY).err().unwrap().to_string()
    };
    assert_eq!(refused(&[], &mut model), "the prompt is empty");
    assert!(refused(&[1, 320], &mut model).starts_with("token 320 is not among the 320"));
    let mad = Sampling { top_p: f32::NAN, ..GREEDY };
    assert!(model.tokens(&[1], &mad).err().unwrap().to_string().starts_with("`top_p`"));
}

#[test]
fn a_model_type_that_means_another_gives_what_that_gives() {
    for (name, case) in [
        ("gemma4_unified", "gemma4"),
        ("hf_olmo", "olmo"),
        ("iquestcoder", "llama"),
        ("joyai_llm_flash", "deepseek_v3"),
        ("kimi_k2", "deepseek_v3"),
        ("minimax_m2", "minimax"),
        ("xverse", "llama"),
    ] {
        let logits = |draft: Draft| {
            let (mut model, _dir) = draft.load().unwrap();
            model.logits(&[5, 1, 300, 7]).unwrap()
        };
        let same = logits(Draft::of(case)) == logits(Draft::of(case).with("model_type", name));
        assert!(same, "{name} is not {case}");
    }
}

#[test]
fn a_part_for_text_may_leave_unsaid_what_is_usual() {
    for (kind, rows) in [("llama", 11_008), ("mistral", 14_336)] {
        let text = json!({"model_type": kind, "vocab_size": 320, "hidden_size": 32, "head_dim": 8});
        let refused = Draft::of("llava").with("text_config", text).refused();
        assert!(refused.contains(&format!("[{rows}, 32]")), "{refused}");
    }
}
