//! The cost of a model, told from its headers, is what it takes in memory.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::path::Path;

use mlx_rs::Array;
use mlxk_core::Inspected;
use mlxk_engine::{CacheOptions, Cost, Model};
use mlxk_tensor::cache::{Cache, Sequences};
use model::{Draft, Tensor, inspected, parity};

/// Most bytes that each slot takes while a sequence grows to `tokens` tokens.
fn taken(model: &Model, tokens: u64) -> u64 {
    let mut cache = model.forward.cache();
    let mut most = vec![0; cache.slots.len()];
    let ids: Vec<u32> = (0..tokens as u32).map(|n| n % 4).collect();
    for chunk in ids.chunks(model.forward.prefill_chunk) {
        let ids = Array::from_slice(chunk, &[1, chunk.len() as i32]);
        let text = Sequences::one(&mut cache, chunk.len() as i32);
        model.forward.run(|| model.forward.forward(&ids, &[], text).map(drop)).unwrap();
        for (most, slot) in most.iter_mut().zip(&cache.slots) {
            *most = Cache { slots: vec![slot.clone()] }.bytes().max(*most);
        }
    }
    most.iter().sum()
}

fn cost(path: &Path, on_cpu: bool) -> Cost {
    let Inspected { facts, plan, .. } = inspected(path).unwrap();
    Cost::of(&facts, &plan, on_cpu, None).unwrap()
}

#[test]
fn the_cache_of_every_model_takes_what_is_told_of_it() {
    let cases = fs::read_dir(parity("")).unwrap().map(|entry| entry.unwrap().path());
    for case in cases.filter(|path| path.is_dir()) {
        let written = Draft::at(&case).write();
        let longest = inspected(written.path()).unwrap().plan.context_length.unwrap_or(600);
        for on_cpu in [true, false] {
            let model = model::load_for(written.path(), on_cpu).unwrap();
            let cost = cost(written.path(), on_cpu);
            for tokens in [1, 600.min(longest)] {
                let form = if on_cpu { "a CPU" } else { "a GPU" };
                let what = format!("{tokens} tokens of {} on {form}", case.display());
                assert_eq!(cost.sequence(tokens), taken(&model, tokens), "{what}");
            }
        }
    }
}

#[test]
fn bounded_and_quantised_caches_take_what_is_told_of_them() {
    let memory =
        CacheOptions { max_kv_size: Some(100), kv_bits: Some(4), ..CacheOptions::default() };
    let memory = CacheOptions { kv_group_size: 32, kv_start: 40, ..memory };
    let path = parity("qwen3-q4");
    for on_cpu in [true, false] {
        let mut model = model::load_for(&path, on_cpu).unwrap();
        model.forward.cache_options = memory.clone();
        let cost = cost(&path, on_cpu).with(&memory);
        for tokens in [1, 700, 1500] {
            assert_eq!(cost.sequence(tokens), taken(&model, tokens), "{tokens} tokens");
        }
    }
}

#[test]
fn weights_count_as_they_lie_on_disk_if_the_model_takes_them() {
    let weights = |case: &str| cost(&parity(case), true).weights;
    assert_eq!(weights("llama"), 230_528);
    let mut seeing = Draft::of("gemma3");
    let blind = cost(seeing.write().path(), true).weights;
    let tower = Tensor::of(&[100], [0.5; 100]);
    seeing.tensors.insert("vision_tower.post_layernorm.weight".to_owned(), tower);
    assert_eq!(cost(seeing.write().path(), true).weights, blind);
}
