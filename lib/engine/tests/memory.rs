//! The memory that a model needs, told from its files.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use mlxk_engine::estimate;
use model::{facts, parity};

#[test]
fn weights_count_as_they_lie_on_disk_and_tokens_by_their_keys_and_values() {
    let facts_of = |case| facts(&parity(case)).unwrap();
    let (plain, narrow) = (facts_of("llama"), facts_of("llama-rope3-tied"));
    // 4 layers of 2 heads of 8 elements, keys and values, of 4 bytes on a CPU.
    let empty = estimate(&plain, 0, true).unwrap();
    assert_eq!(estimate(&plain, 1000, true).unwrap() - empty, 1000 * 4 * 2 * 8 * 2 * 4);
    assert_eq!(empty, 230_528);
    assert_eq!(estimate(&plain, 0, false).unwrap(), empty);
    // 2 layers of 4 heads of 8 elements, under the names of GPT 2.
    let gpt = facts_of("gpt2");
    let text = estimate(&gpt, 1000, false).unwrap() - estimate(&gpt, 0, false).unwrap();
    assert_eq!(text, 1000 * 2 * 4 * 8 * 2 * 2);
    assert_eq!(estimate(&narrow, 0, true).unwrap(), estimate(&narrow, 0, false).unwrap());
}

#[test]
fn layers_without_keys_and_values_count_as_none() {
    // Layers with keys and values, and what each remembers of a token.
    for (case, layers, elements) in [
        ("mamba", 0, 0),
        ("lfm2-biased", 2, 2 * 8 * 2),
        ("qwen3_5", 2, 2 * 16 * 2),
        ("granitemoehybrid", 1, 2 * 8 * 2),
        ("nemotron_h", 1, 2 * 16 * 2),
        ("jamba", 1, 2 * 8 * 2),
        ("gemma3n", 4, 2 * 16 * 2),
        // A latent vector, the part of a key that turns, and a key to be chosen by.
        ("deepseek_v32", 2, 32 + 16 + 24),
        // Two rows, and their keys, for every other token.
        ("deepseek_v41", 2, (32 + 32) / 2),
    ] {
        let facts = facts(&parity(case)).unwrap();
        let text = estimate(&facts, 1000, true).unwrap() - estimate(&facts, 0, true).unwrap();
        assert_eq!(text, 1000 * layers * elements * 4, "{case}");
    }
}
