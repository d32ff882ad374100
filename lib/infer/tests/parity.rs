//! The engine computes what the Python reference computes, on a tiny model of each kind.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    prompt_ids: Vec<u32>,
    logits_head: Vec<f32>,
    logits_absmax: f32,
    greedy_ids: Vec<u32>,
}

/// `tolerance` is relative to the largest logit.
fn agrees(case: &str, tolerance: f32) {
    let path = model::parity(case);
    let expected: Expected =
        serde_json::from_slice(&std::fs::read(path.join("expected.json")).unwrap()).unwrap();
    let mut loaded = model::load(&path).unwrap();
    for chunk in [1, 5, 21, 2048] {
        loaded.prefill_chunk = chunk;
        let logits = loaded.logits(&expected.prompt_ids).unwrap();
        for (i, (got, want)) in logits.iter().zip(&expected.logits_head).enumerate() {
            let apart = (got - want).abs() / expected.logits_absmax;
            assert!(apart <= tolerance, "{case}, chunks of {chunk}, logit {i}: {got}, not {want}");
        }
        let tokens = loaded.tokens(&expected.prompt_ids, &model::GREEDY).unwrap();
        let ids: Vec<u32> = tokens.take(24).map(Result::unwrap).collect();
        assert_eq!(ids, expected.greedy_ids, "{case}, chunks of {chunk}");
    }
}

#[test]
fn llama() {
    agrees("llama", 2e-4);
}

#[test]
fn llama_quantised() {
    agrees("llama-q4", 2e-4);
}

#[test]
fn llama_in_bfloat16_with_stretched_positions_and_tied_embeddings() {
    agrees("llama-rope3-tied", 2e-2);
}

#[test]
fn mistral() {
    agrees("mistral", 2e-4);
}

#[test]
fn qwen2() {
    agrees("qwen2", 2e-4);
}

#[test]
fn qwen3() {
    agrees("qwen3", 2e-4);
}

#[test]
fn qwen3_quantised() {
    agrees("qwen3-q4", 2e-4);
}

#[test]
fn smollm3() {
    agrees("smollm3", 2e-4);
}
