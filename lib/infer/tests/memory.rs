//! The memory that a model needs, told from its files.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use mlxk_infer::estimate;
use model::{facts, parity};

#[test]
fn weights_count_as_they_are_computed_with_and_tokens_by_their_keys_and_values() {
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
    let widened = estimate(&narrow, 0, true).unwrap();
    assert_eq!(widened, 2 * estimate(&narrow, 0, false).unwrap());
}
