//! Quantized models compute nearly the same as the models that they are made of.

use std::path::{Path, PathBuf};

use mlxk_core::quantization::Mode;
use mlxk_core::{Float, Places, Task};
use mlxk_engine::Embedder;
use mlxk_models::convert::{Change, Quantize, Recipe, convert};
use tempfile::TempDir;

use crate::cases::{
    case, cases, compare, copy, cut, embed, expected, load, of_ids, texts, vectors,
};
use crate::model::Draft;

#[test]
fn every_family_is_quantized_and_computes_nearly_the_same() {
    let home = TempDir::new().unwrap();
    for (number, path) in cases(Task::Embedding, true).iter().enumerate() {
        let dir = Draft::at(path).write();
        let ids: Vec<Vec<u32>> = serde_json::from_value(expected(path)["ids"].clone()).unwrap();
        let want = vectors(&expected(path)["embeddings"]);
        for (bits, least) in [("8", 0.999), ("4", 0.9)] {
            let target = home.path().join(format!("{number}-{bits}"));
            quantized_as(dir.path(), &target, bits);
            for on_cpu in [true, false] {
                let got = of_ids(&load(&target, on_cpu).unwrap(), &ids, true);
                for (got, want) in got.iter().zip(&want) {
                    let (apart, cosine) = compare(got, want);
                    let name = path.display();
                    assert!(cosine > least && apart > 1e-4, "{name} {bits} bits: {cosine}");
                }
            }
        }
    }
}

/// Writes a quantised copy of the model in `source` to `root`, and returns its folder.
pub fn quantized(source: &Path, root: &Path) -> PathBuf {
    let target = root.join("packed");
    quantized_as(source, &target, "8");
    target
}

/// Writes a copy of the model in `source` with weights of `bits` to `target`.
fn quantized_as(source: &Path, target: &Path, bits: &str) {
    let quantize = Quantize::new(Mode::Affine, bits.parse().unwrap(), Some(32)).unwrap();
    let recipe = Recipe { change: Change::Quantize(quantize), ..Recipe::default() };
    converted(source, target, recipe);
}

/// Writes a copy of the model in `source` as `recipe` says to `target`.
fn converted(source: &Path, target: &Path, recipe: Recipe) {
    let hub = target.with_extension("hub");
    let places = Places { root: hub.clone(), hub: hub.join("hub"), workspaces: None };
    convert(source, target, &recipe, true, &places, |_| Ok(())).unwrap();
}

#[test]
fn a_quantized_encoder_computes_nearly_the_same() {
    let (dir, home) = (copy("bert-mean"), TempDir::new().unwrap());
    let target = quantized(dir.path(), home.path());
    let expected = expected(&case("bert-mean"));
    for on_cpu in [true, false] {
        let got = embed(&load(&target, on_cpu).unwrap(), &texts(&expected["texts"]), &cut());
        for (got, want) in got.iter().zip(vectors(&expected["embeddings"])) {
            let (_, cosine) = compare(got, &want);
            assert!((0.999..0.999_999).contains(&cosine), "{cosine}");
        }
    }
}

/// Largest distance, and smallest cosine, of the vectors of two models.
fn apart(a: &Embedder, b: &Embedder, ids: &[Vec<u32>]) -> (f32, f32) {
    let pairs = of_ids(a, ids, true).into_iter().zip(of_ids(b, ids, true));
    pairs.fold((0.0, 1.0), |(most, least), (a, b)| {
        let (apart, cosine) = compare(&a, &b);
        (most.max(apart), cosine.min(least))
    })
}

#[test]
fn packed_and_short_weights_compute_what_the_same_weights_in_32_bits_do() {
    let home = TempDir::new().unwrap();
    let all = cases(Task::Embedding, true).into_iter().chain(cases(Task::Embedding, false));
    for (number, path) in all.enumerate() {
        let name = path.display().to_string();
        let dir = name.ends_with("-drawn").then(|| Draft::at(&path).write());
        let source = dir.as_ref().map_or(path.as_path(), |dir| dir.path());
        let ids: Vec<Vec<u32>> = serde_json::from_value(expected(&path)["ids"].clone()).unwrap();
        let ids: Vec<Vec<u32>> = ids.into_iter().filter(|ids| !ids.is_empty()).collect();
        let at = |kind: &str| home.path().join(format!("{number}-{kind}"));
        let wide = |change| Recipe { dtype: Some(Float::F32), change, ..Recipe::default() };
        for bits in ["4", "8"] {
            quantized_as(source, &at(bits), bits);
            let plain = at(&format!("{bits}-plain"));
            converted(&at(bits), &plain, wide(Change::Dequantize));
            let plain = load(&plain, true).unwrap();
            for on_cpu in [true, false] {
                let (apart, cosine) = apart(&load(&at(bits), on_cpu).unwrap(), &plain, &ids);
                assert!(cosine > 0.9999, "{name}, {bits} bits, {on_cpu}: {apart}, {cosine}");
            }
        }
        let short = Recipe { dtype: Some(Float::BF16), ..Recipe::default() };
        converted(source, &at("bf16"), short);
        converted(&at("bf16"), &at("f32"), wide(Change::None));
        let plain = load(&at("f32"), true).unwrap();
        for (on_cpu, least) in [(true, 0.999_999), (false, 0.999)] {
            let (apart, cosine) = apart(&load(&at("bf16"), on_cpu).unwrap(), &plain, &ids);
            assert!(cosine > least, "{name}, bf16, {on_cpu}: {apart}, {cosine}");
        }
    }
}
