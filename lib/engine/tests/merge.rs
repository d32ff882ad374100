//! An adapter that is merged gives the tensors of mlx-lm's `fuse`, to the bit; one that does not fit
//! is refused, and nothing is left.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::tensors::{self, Dtype, Entry, Header};
use mlxk_core::{Error, Places, Record};
use mlxk_models::convert::{Change, Recipe, merge};
use model::Draft;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn adapters() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/adapters")
}

fn merged(
    root: &Path,
    case: &str,
    adapter: &Path,
    to: &str,
    recipe: &Recipe,
) -> Result<Record, Error> {
    let source = root.join("source");
    if !source.exists() {
        fs::create_dir(&source).unwrap();
        Draft::of(case).write_in(&source);
    }
    let places = Places { root: root.join("hf"), hub: root.join("hf/hub"), workspaces: None };
    merge(&source, &root.join(to), Some(adapter), recipe, true, &places, |_| Ok(()))
}

fn digest(model: &Path) -> String {
    let bytes = fs::read(model.join("model.safetensors")).unwrap();
    let header = Header::read(&mut &bytes[..], bytes.len() as u64).unwrap();
    let mut tensors = header.tensors;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for tensor in tensors {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        hash.update(format!("{} {} [{}] ", tensor.name, tensor.dtype, shape.join(",")));
        hash.update(&bytes[tensor.range.start as usize..tensor.range.end as usize]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_reference_merges_alike() {
    let plain = Recipe { change: Change::Dequantize, ..Recipe::default() };
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(adapters()).unwrap() {
        let adapter = entry.unwrap().path();
        let expected = fs::read(adapter.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let Some(case) = expected["case"].as_str() else { continue };
        let root = TempDir::new().unwrap();
        for (key, recipe) in [("fused", &Recipe::default()), ("dequantized", &plain)] {
            let Some(known) = expected[key].as_str() else { continue };
            count += 1;
            let record = merged(root.path(), case, &adapter, key, recipe);
            let what = match record {
                Ok(_) if digest(&root.path().join(key)) == known => continue,
                Ok(_) => "other bytes".to_owned(),
                Err(e) => e.to_string(),
            };
            wrong.push(format!("{} {key}: {what}", adapter.display()));
        }
    }
    assert!(wrong.is_empty() && count > 12, "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_reference_goes_on_alike_with_an_adapter() {
    for entry in fs::read_dir(adapters()).unwrap() {
        let adapter = entry.unwrap().path();
        let expected = fs::read(adapter.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        // Of bfloat16 the best two are too near one another.
        let Some(case) = expected["case"].as_str().filter(|case| !case.ends_with("bf16")) else {
            continue;
        };
        let ids = |value: &Value| serde_json::from_value::<Vec<u32>>(value.clone()).unwrap();
        let known = fs::read(model::parity(case).join("expected.json")).unwrap();
        let known: Value = serde_json::from_slice(&known).unwrap();
        let place = Draft::of(case).write();
        let mut model = model::load_adapted(place.path(), &adapter).unwrap();
        let told = model.tokens(&ids(&known["prompt_ids"]), &model::GREEDY).unwrap();
        let told: Vec<u32> = told.take(16).map(Result::unwrap).collect();
        assert_eq!(told, ids(&expected["greedy_ids"]), "{}", adapter.display());
    }
}

/// The adapter `of` with its tensors changed, in a folder.
fn changed(of: &str, change: impl Fn(&mut Vec<(Entry, Vec<u8>)>)) -> TempDir {
    let folder = TempDir::new().unwrap();
    let from = adapters().join(of);
    fs::copy(from.join("adapter_config.json"), folder.path().join("adapter_config.json")).unwrap();
    let bytes = fs::read(from.join("adapters.safetensors")).unwrap();
    let header = Header::read(&mut &bytes[..], bytes.len() as u64).unwrap();
    let read = |t: tensors::Tensor| {
        let data = bytes[t.range.start as usize..t.range.end as usize].to_vec();
        (Entry { name: t.name, dtype: t.dtype, shape: t.shape }, data)
    };
    let mut all: Vec<_> = header.tensors.into_iter().map(read).collect();
    change(&mut all);
    let entries: Vec<_> = all.iter().map(|(entry, _)| entry.clone()).collect();
    let data = |entry: &Entry| {
        let found = all.iter().find(|(other, _)| other.name == entry.name);
        Ok(found.unwrap().1.as_slice().into())
    };
    tensors::write(folder.path(), &entries, tensors::SHARD, data).unwrap();
    let named = |name: &str| folder.path().join(format!("{name}.safetensors"));
    fs::rename(named("model"), named("adapters")).unwrap();
    folder
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_left() {
    let root = TempDir::new().unwrap();
    let refused = |adapter: &Path, parts: &[&str]| {
        let error = merged(root.path(), "llama", adapter, "made", &Recipe::default()).unwrap_err();
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)) && !text.contains('\n'), "{text}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the source is there");
    };
    let other = changed("dense", |all| {
        all.iter_mut()
            .for_each(|(entry, _)| entry.name = entry.name.replace("layers.3", "layers.9"));
    });
    refused(other.path(), &["layers.9", "another model"]);
    let lacking =
        changed("dense", |all| all.retain(|(entry, _)| !entry.name.ends_with("q_proj.lora_b")));
    refused(lacking.path(), &["q_proj.lora_b", "missing"]);
    let rank = changed("dense", |all| {
        let (entry, _) = all.iter_mut().find(|(entry, _)| entry.name.ends_with("lora_b")).unwrap();
        entry.shape = vec![entry.shape[0] / 2, entry.shape[1] * 2];
    });
    refused(rank.path(), &["do not fit", "another model"]);
    let whole = changed("dense", |all| {
        let (entry, data) = &mut all[0];
        (entry.dtype, entry.shape) = (Dtype::I32, entry.shape.clone());
        data.truncate(entry.bytes().unwrap() as usize);
    });
    refused(whole.path(), &["no numbers"]);
    refused(&adapters(), &["adapter_config.json"]);
    refused(&adapters().join("packed-experts"), &["another model"]);
}
