//! What conversion writes is what the Python reference writes, and nothing is written in vain.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use mlxk_core::quantization::Mode;
use mlxk_core::workspace::sentinel::Sentinel;
use mlxk_core::{Error, Float, Places, Progress, Record, tensors};
use mlxk_models::convert::{Change, Quantize, Recipe, convert};
use model::Draft;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
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

    fn places(&self) -> Places {
        Places { root: self.at("hf"), hub: self.at("hf/hub"), workspaces: None }
    }

    fn convert(&self, from: &str, to: &str, recipe: &Recipe) -> Result<Record, Error> {
        convert(&self.at(from), &self.at(to), recipe, true, &self.places(), |_| Ok(()))
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

fn quantize(packing: Mode, bits: &str, group_size: Option<usize>) -> Recipe {
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
            Recipe { dtype: Some(Float::BF16), ..quantize(Mode::Affine, "4", None) }
        }
        "mxfp8" => quantize(Mode::Mxfp8, "8", None),
        "mxfp4" | "nvfp4" => quantize(Mode::find(way).unwrap(), "4", None),
        mixed if mixed.starts_with("mixed") => quantize(Mode::Affine, mixed, Some(32)),
        way => {
            let (bits, group_size) = way.split_once(" bits in ").unwrap();
            quantize(Mode::Affine, bits, Some(group_size.parse().unwrap()))
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
    bench.convert("source", "mixed", &quantize(Mode::Affine, "mixed_2_6", Some(32))).unwrap();
    let config: Value =
        serde_json::from_slice(&fs::read(bench.at("mixed/config.json")).unwrap()).unwrap();
    let table = &config["quantization"];
    assert_eq!((&table["bits"], &table["group_size"]), (&2.into(), &32.into()));
    assert_eq!(table["lm_head"]["bits"], 6);
    assert_eq!(table["model.layers.3.mlp.down_proj"]["bits"], 6);
    assert_eq!(table.get("model.layers.0.mlp.down_proj"), None);
    assert_eq!(config["quantization_config"], *table);
    let Sentinel(sentinel) = Sentinel::read(&bench.at("mixed")).unwrap().unwrap();
    assert_eq!(sentinel["quantization"], json!({"bits": 2, "group_size": 32}));
}

#[test]
fn what_a_model_will_take_is_known_before_it_is_there() {
    for case in ["llama", "gpt_neox"] {
        let bench = Bench::new(case);
        let draft = Draft::of(case);
        let config = Value::Object(draft.config.clone());
        let entry = |(name, tensor): (&String, &model::Tensor)| tensors::Entry {
            name: name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        };
        let entries: Vec<_> = draft.tensors.iter().map(entry).collect();
        let recipe = quantize(Mode::Affine, "4", Some(32));
        let record = bench.convert("source", "packed", &recipe).unwrap();
        let foretold = mlxk_models::convert::bytes(&config, &entries, &recipe).unwrap();
        assert_eq!(record.get("size_bytes"), Some(&json!(foretold)), "{case}");
    }
}

#[test]
fn all_that_is_written_is_counted() {
    let bench = Bench::new("llama");
    fs::write(bench.at("source/notes.txt"), vec![b'x'; 100_000]).unwrap();
    let (mut due, mut read) = (0, 0);
    let count = |progress: Progress| {
        match progress {
            Progress::Due(bytes) => due += bytes,
            Progress::Read(bytes) => read += bytes,
            other => panic!("{other:?}"),
        }
        Ok(())
    };
    let recipe = quantize(Mode::Affine, "4", None);
    let places = bench.places();
    let record =
        convert(&bench.at("source"), &bench.at("t"), &recipe, true, &places, count).unwrap();
    let tokenizer = fs::metadata(bench.at("source/tokenizer.json")).unwrap().len();
    let tensors = record.get("size_bytes").unwrap().as_u64().unwrap();
    assert_eq!((due, read), (tensors + tokenizer + 100_000, due));
}

#[test]
fn what_is_made_plain_again_is_near_the_original() {
    let bench = Bench::new("gpt2");
    let original = read(&bench.at("source"));
    let numbers = |bytes: &[u8]| -> Vec<f32> {
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    };
    for (packing, bits, group_size) in forms() {
        let packed = format!("{} {bits} {group_size}", packing.name());
        let plain = format!("{packed} plain");
        let recipe = quantize(packing, &bits.to_string(), Some(group_size));
        bench.convert("source", &packed, &recipe).unwrap();
        bench.convert(&packed, &plain, &PLAIN).unwrap();
        let back = read(&bench.at(&plain));
        assert_eq!(back.keys().collect::<Vec<_>>(), original.keys().collect::<Vec<_>>());
        for (name, (_, _, bytes)) in &original {
            let (original, back) = (numbers(bytes), numbers(&back[name].2));
            for (a, b) in original.chunks(group_size).zip(back.chunks(group_size)) {
                let apart = a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
                let most = error(packing, bits, a);
                assert!(apart <= most, "{packed}, {name}: {apart} apart, not {most}");
            }
        }
    }
}

/// Every form in which MLX packs weights.
fn forms() -> impl Iterator<Item = (Mode, usize, usize)> {
    Mode::ALL.into_iter().flat_map(|packing| {
        packing.supported().map(move |(bits, group_size)| (packing, bits, group_size))
    })
}

const PLAIN: Recipe =
    Recipe { dtype: Some(Float::F32), change: Change::Dequantize, shard: tensors::SHARD };

/// The largest error that a form implies for the weights of a group.
fn error(packing: Mode, bits: usize, group: &[f32]) -> f32 {
    let most = group.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let least = group.iter().fold(f32::INFINITY, |a, &b| a.min(b));
    let largest = most.max(-least);
    match packing {
        // Half a step, and what the end of the range moved to meet zero.
        Mode::Affine => 1.1 * (most - least) / ((1 << bits) - 1) as f32,
        // 4 and 6 are the largest of 4 bits, half of that apart if a power of two has to scale them:
        // what is beyond 6 is cut off, up to 8.
        Mode::Mxfp4 => largest / 3.0,
        // The same with a scale that is off by a sixteenth at most.
        Mode::Nvfp4 => largest * (1.0 / 6.0 + 1.0 / 16.0),
        // Three bits behind the point, and what is beyond 448 is cut off, up to 512.
        Mode::Mxfp8 => largest / 8.0,
    }
}

#[test]
fn what_is_packed_runs_as_what_it_stands_for() {
    let mut ran = BTreeSet::new();
    // Rows of 32 and 64 numbers, and some of 128.
    for case in ["qwen2", "gpt_neox"] {
        let bench = Bench::new(case);
        let logits = |name: &str, on_cpu| {
            let mut model = model::load_for(&bench.at(name), on_cpu).unwrap();
            model.logits(&[71, 294, 35, 133, 63, 256, 233]).unwrap()
        };
        for (packing, bits, group_size) in forms() {
            let packed = format!("{} {bits} {group_size}", packing.name());
            let plain = format!("{packed} plain");
            let recipe = quantize(packing, &bits.to_string(), Some(group_size));
            bench.convert("source", &packed, &recipe).unwrap();
            if !read(&bench.at(&packed)).keys().any(|name| name.ends_with(".scales")) {
                continue; // no row of this model is as long as a group
            }
            bench.convert(&packed, &plain, &PLAIN).unwrap();
            for on_cpu in [true, false] {
                let apart = model::apart(&logits(&packed, on_cpu), &logits(&plain, on_cpu));
                assert!(apart < 1e-3, "{case}, {packed}, on a CPU {on_cpu}: {apart} apart");
            }
            ran.insert(packed);
        }
    }
    let all = forms().map(|(packing, bits, size)| format!("{} {bits} {size}", packing.name()));
    assert_eq!(ran, all.collect());
}

#[test]
fn a_large_model_is_written_in_shards_with_an_index() {
    let bench = Bench::new("mixtral-hf");
    let recipe = Recipe { shard: 50_000, ..quantize(Mode::Affine, "4", Some(32)) };
    bench.convert("source", "whole", &quantize(Mode::Affine, "4", Some(32))).unwrap();
    bench.convert("source", "parts", &recipe).unwrap();
    let index = fs::read(bench.at("parts").join(tensors::INDEX)).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let whole = read(&bench.at("whole"));
    assert_eq!(map.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    let sizes: usize = whole.values().map(|(.., bytes)| bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], sizes);
    let shards = model::facts(&bench.at("parts")).unwrap().shards.len();
    assert!(shards > 2, "{shards} shards");
    let logits = |name: &str| model::load(&bench.at(name)).unwrap().logits(&[1, 2, 3]).unwrap();
    assert_eq!(logits("whole"), logits("parts"));
}

#[test]
fn what_is_not_of_the_language_model_keeps_its_type_and_its_bytes() {
    let bench = Bench::new("gemma3-hf");
    let way = Recipe { dtype: Some(Float::F16), ..quantize(Mode::Affine, "4", Some(32)) };
    bench.convert("source", "packed", &way).unwrap();
    let (before, after) = (read(&bench.at("source")), read(&bench.at("packed")));
    let senses = before.iter().filter(|(name, _)| !name.contains("language_model"));
    let senses: Vec<_> = senses.collect();
    assert!(!senses.is_empty());
    for (name, tensor) in senses {
        assert_eq!(after.get(name), Some(tensor), "{name}");
    }
    assert_eq!(after["language_model.model.norm.weight"].0, tensors::Dtype::F16);
}

/// What becomes of a conversion during which `accident` happens to the weights.
fn during(accident: impl Fn(&Path)) -> String {
    let bench = Bench::new("llama");
    let weights = bench.at("source/model.safetensors");
    let mut done = false;
    let progress = |progress: Progress| {
        if matches!(progress, Progress::Read(_)) && !done {
            done = true;
            accident(&weights);
        }
        Ok(())
    };
    let recipe = quantize(Mode::Affine, "4", None);
    let places = bench.places();
    let (source, target) = (bench.at("source"), bench.at("target"));
    let error = convert(&source, &target, &recipe, true, &places, progress).unwrap_err();
    assert_eq!(fs::read_dir(bench.root.path()).unwrap().count(), 1, "{error}");
    error.to_string()
}

#[test]
fn a_shard_that_changes_while_it_is_read_ends_it() {
    let open = |path: &Path| fs::OpenOptions::new().write(true).open(path).unwrap();
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let written = during(|path| {
        let mut file = open(path);
        file.seek(SeekFrom::Start(size(path) - 4)).unwrap();
        file.write_all(&[7; 4]).unwrap();
    });
    let cut = during(|path| open(path).set_len(size(path) / 2).unwrap());
    let longer = during(|path| open(path).set_len(size(path) * 2).unwrap());
    let another = during(|path| {
        fs::copy(path, path.with_extension("new")).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    });
    let gone = during(|path| fs::remove_file(path).unwrap());
    for error in [written, cut, longer, another] {
        assert!(error.ends_with("source/model.safetensors: changed while it was read"), "{error}");
    }
    assert!(gone.contains("source/model.safetensors: No such file"), "{gone}");
}

#[test]
fn a_disk_without_room_is_refused_before_anything_is_written() {
    const HUGE: usize = 4 << 40; // of a sparse file
    let bench = Bench::new("gemma3-hf");
    let header = json!({"vision_tower.x": {"dtype": "F32", "shape": [HUGE / 1024, 256],
        "data_offsets": [0, HUGE]}});
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    let more = bench.at("source/model-more.safetensors");
    fs::write(&more, &bytes).unwrap();
    fs::File::options()
        .write(true)
        .open(&more)
        .unwrap()
        .set_len((bytes.len() + HUGE) as u64)
        .unwrap();
    tensors::rebuild_index(&bench.at("source")).unwrap();
    let read = |_: mlxk_core::Progress| -> Result<(), Error> { panic!("something was written") };
    let recipe = quantize(Mode::Affine, "4", Some(32));
    let (source, target) = (bench.at("source"), bench.at("target"));
    let error = convert(&source, &target, &recipe, true, &bench.places(), read).unwrap_err();
    assert!(error.to_string().contains("the disk has no room: 4398"), "{error}");
    // What only comes along needs room too.
    let (bench, gguf) = (Bench::new("llama"), "source/other.gguf");
    fs::File::create(bench.at(gguf)).unwrap().set_len(HUGE as u64).unwrap();
    let (source, target) = (bench.at("source"), bench.at("target"));
    let error = convert(&source, &target, &recipe, true, &bench.places(), read).unwrap_err();
    assert!(error.to_string().contains("the disk has no room: 4398"), "{error}");
    assert_eq!(fs::read_dir(bench.root.path()).unwrap().count(), 1);
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
    assert!(refused("source", &quantize(Mode::Affine, "4", None)).contains("already"));
    assert!(refused("nowhere", &quantize(Mode::Affine, "4", None)).contains("nowhere"));
    fs::write(bench.at("source/config.json"), r#"{"model_type": "xlnet"}"#).unwrap();
    assert!(refused("source", &Recipe::default()).contains("xlnet"));
    let bench = Bench::new("llama");
    let error =
        bench.convert("source", "t", &Recipe { change: Change::Dequantize, ..Recipe::default() });
    assert!(error.unwrap_err().to_string().contains("not quantised"));
}

#[test]
fn forms_that_mlx_has_not_are_refused() {
    for (packing, bits, group_size) in [
        (Mode::Affine, "7", None),
        (Mode::Affine, "4", Some(48)),
        (Mode::Mxfp4, "8", None),
        (Mode::Nvfp4, "4", Some(32)),
        (Mode::Mxfp8, "mixed_2_6", None),
    ] {
        let error = Quantize::new(packing, bits.parse().unwrap(), group_size).unwrap_err();
        assert!(error.hint.unwrap().contains("forms are"), "{}", packing.name());
    }
}
