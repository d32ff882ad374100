//! Quantized models compute nearly the same as the models that they are made of.

use std::path::{Path, PathBuf};

use mlxk_core::quantization::Mode;
use mlxk_core::{Places, Task};
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
