//! What conversion writes is what the Python reference writes, and nothing is written in vain.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::{Error, Float, Packing, Places, Record, tensors};
use mlxk_infer::convert::{Change, Quantize, Recipe, convert};
use model::Draft;
use safetensors::tensor::TensorView;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A directory for workspaces, with a copy of a parity case in it.
struct Bench {
    root: TempDir,
}

impl Bench {
    fn new(case: &str) -> Bench {
        let root = TempDir::new().unwrap();
        let source = root.path().join("source");
        fs::create_dir(&source).unwrap();
        Draft::of(case).write_in(&source);
        Bench { root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn convert(&self, from: &str, to: &str, recipe: &Recipe) -> Result<Record, Error> {
        let places = Places { root: self.at("hf"), hub: self.at("hf/hub"), workspaces: None };
        convert(&self.at(from), &self.at(to), recipe, true, &places, |_| Ok(()))
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data")
}

/// The type, the shape and the bytes of each tensor.
fn read(model: &Path) -> BTreeMap<String, (tensors::Dtype, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(model.join("model.safetensors")).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let parts = |view: TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    read.iter().map(|(name, view)| (name.to_owned(), parts(view))).collect()
}

fn digest(model: &Path) -> String {
    let mut hash = Sha256::new();
    let senses = ["vision_", "visual.", "multi_modal_projector.", "audio_tower.", "embed_audio."];
    let of_text = |name: &str| !senses.iter().any(|part| name.contains(part));
    for (name, (dtype, shape, bytes)) in read(model).into_iter().filter(|(name, _)| of_text(name)) {
        let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
        hash.update(format!("{name} {dtype} [{}] ", shape.join(",")));
        hash.update(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn quantize(packing: Packing, bits: &str, group_size: Option<usize>) -> Recipe {
    let quantize = Quantize::new(packing, bits.parse().unwrap(), group_size).unwrap();
    Recipe { dtype: None, change: Change::Quantize(quantize), ..Recipe::default() }
}

/// The recipe of a way that `tests/make-convert` names.
fn recipe(way: &str) -> Recipe {
    match way {
        "as it is" => Recipe::default(),
        "plain" => Recipe { change: Change::Dequantize, ..Recipe::default() },
        "float16" => Recipe { dtype: Some(Float::F16), change: Change::None, ..Recipe::default() },
        "4 bits of bfloat16" => {
            Recipe { dtype: Some(Float::BF16), ..quantize(Packing::Affine, "4", None) }
        }
        "mxfp8" => quantize(Packing::Mxfp8, "8", None),
        "mxfp4" | "nvfp4" => quantize(Packing::find(way).unwrap(), "4", None),
        mixed if mixed.starts_with("mixed") => quantize(Packing::Affine, mixed, Some(32)),
        way => {
            let (bits, group_size) = way.split_once(" bits in ").unwrap();
            quantize(Packing::Affine, bits, Some(group_size.parse().unwrap()))
        }
    }
}

#[test]
fn every_tensor_is_that_of_the_reference() {
    let golden = fs::read(data().join("convert.json")).unwrap();
    let golden: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&golden).unwrap();
    let mut failures = Vec::new();
    for (case, ways) in &golden {
        let bench = Bench::new(case);
        for (way, expected) in ways {
            match bench.convert("source", way, &recipe(way)) {
                Ok(_) if digest(&bench.at(way)) == *expected => {}
                Ok(_) => failures.push(format!("{case}: {way}: other tensors")),
                Err(e) => failures.push(format!("{case}: {way}: {e}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_table_of_a_mixture_names_what_is_better() {
    let bench = Bench::new("llama");
    bench.convert("source", "mixed", &quantize(Packing::Affine, "mixed_2_6", Some(32))).unwrap();
    let config: Value =
        serde_json::from_slice(&fs::read(bench.at("mixed/config.json")).unwrap()).unwrap();
    let table = &config["quantization"];
    assert_eq!((&table["bits"], &table["group_size"]), (&2.into(), &32.into()));
    assert_eq!(table["lm_head"]["bits"], 6);
    assert_eq!(table["model.layers.3.mlp.down_proj"]["bits"], 6);
    assert_eq!(table.get("model.layers.0.mlp.down_proj"), None);
    assert_eq!(config["quantization_config"], *table);
}

#[test]
fn what_is_made_plain_again_is_near_the_original() {
    let bench = Bench::new("llama");
    let original = read(&bench.at("source"));
    let numbers = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    };
    // The largest error of a weight, as a part of the largest weight of its group.
    for (packing, bits, group_size, error) in [
        (Packing::Affine, "2", 32, 0.7),
        (Packing::Affine, "3", 32, 0.3),
        (Packing::Affine, "4", 32, 0.14),
        (Packing::Affine, "5", 32, 0.07),
        (Packing::Affine, "6", 32, 0.035),
        (Packing::Affine, "8", 32, 0.009),
        (Packing::Mxfp4, "4", 32, 0.35),
        (Packing::Nvfp4, "4", 16, 0.2),
        (Packing::Mxfp8, "8", 32, 0.08),
    ] {
        let packed = format!("{} {bits}", packing.name());
        let plain = format!("{packed} plain");
        bench.convert("source", &packed, &quantize(packing, bits, Some(group_size))).unwrap();
        let back =
            Recipe { dtype: Some(Float::F32), change: Change::Dequantize, ..Recipe::default() };
        bench.convert(&packed, &plain, &back).unwrap();
        let back = read(&bench.at(&plain));
        assert_eq!(back.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>());
        for (name, (_, _, bytes)) in &original {
            let (original, back) = (numbers(bytes), numbers(&back[name].2));
            for (a, b) in original.chunks(group_size).zip(back.chunks(group_size)) {
                let largest = a.iter().fold(0f32, |most, x| most.max(x.abs()));
                let apart = a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
                assert!(apart <= error * largest, "{packed}, {name}: {apart} of {largest}");
            }
        }
    }
}

#[test]
fn what_cannot_be_done_leaves_nothing() {
    let bench = Bench::new("llama-q4");
    let refused = |from: &str, recipe: &Recipe| {
        let error = bench.convert(from, "target", recipe).unwrap_err();
        let left = fs::read_dir(bench.root.path()).unwrap().count();
        assert_eq!(left, 1, "{error}");
        error.to_string()
    };
    assert!(refused("source", &quantize(Packing::Affine, "4", None)).contains("already"));
    assert!(refused("nowhere", &quantize(Packing::Affine, "4", None)).contains("nowhere"));
    fs::write(bench.at("source/config.json"), r#"{"model_type": "bert"}"#).unwrap();
    assert!(refused("source", &Recipe::default()).contains("bert"));
    let bench = Bench::new("llama");
    let error =
        bench.convert("source", "t", &Recipe { change: Change::Dequantize, ..Recipe::default() });
    assert!(error.unwrap_err().to_string().contains("not quantised"));
}

#[test]
fn forms_that_mlx_has_not_are_refused() {
    for (packing, bits, group_size) in [
        (Packing::Affine, "7", None),
        (Packing::Affine, "4", Some(48)),
        (Packing::Mxfp4, "8", None),
        (Packing::Nvfp4, "4", Some(32)),
        (Packing::Mxfp8, "mixed_2_6", None),
    ] {
        let error = Quantize::new(packing, bits.parse().unwrap(), group_size).unwrap_err();
        assert!(error.hint.unwrap().contains("forms are"), "{}", packing.name());
    }
}
