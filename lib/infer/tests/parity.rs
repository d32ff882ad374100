//! The engine computes what the Python reference computes, on a tiny model of each kind.
//!
//! A case is a folder of `tests/data/parity`; `tests/make-parity` makes them. `PARITY=DIR` names a
//! folder of further ones.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::tensors::Dtype;
use mlxk_infer::Model;
use model::Draft;
use model::drawn::Drawn;
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Expected {
    prompt_ids: Vec<u32>,
    logits_head: Vec<f32>,
    logits_absmax: f32,
    greedy_ids: Vec<u32>,
    /// Which variant of the drawn weights.
    #[serde(default)]
    seed: u64,
    /// The weights, if they are drawn instead of stored.
    tensors: Option<Vec<Drawn>>,
}

#[test]
fn all_cases() {
    let mut cases = folders(&model::parity(""));
    if let Some(more) = env::var_os("PARITY") {
        cases.extend(folders(Path::new(&more)));
    }
    assert!(cases.len() >= 8);
    let failures: Vec<String> = cases.iter().filter_map(|case| agrees(case).err()).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Says what is not as the reference has it in the case `path`.
fn agrees(path: &Path) -> Result<(), String> {
    let case = path.file_name().unwrap().display();
    let expected: Expected =
        serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap();
    let (mut model, _dir) = load(path, &expected).map_err(|e| format!("{case}: {e}"))?;
    for chunk in [1, 5, 21, 2048] {
        model.prefill_chunk = chunk;
        let logits = model.logits(&expected.prompt_ids).map_err(|e| format!("{case}: {e}"))?;
        let apart = |(got, want): (&f32, &f32)| (got - want).abs() / expected.logits_absmax;
        let most = logits.iter().zip(&expected.logits_head).map(apart).fold(0.0, f32::max);
        if most.is_nan() || most > tolerance(path, &expected) {
            return Err(format!("{case}, chunks of {chunk}: logits are {most} apart"));
        }
        let tokens = model.tokens(&expected.prompt_ids, &model::GREEDY).unwrap();
        let ids: Vec<u32> = tokens.take(24).map(Result::unwrap).collect();
        if ids != expected.greedy_ids {
            return Err(format!(
                "{case}, chunks of {chunk}: {ids:?}, not {:?}",
                expected.greedy_ids
            ));
        }
    }
    Ok(())
}

/// The model, and the directory that it needs if its weights are not stored.
fn load(path: &Path, expected: &Expected) -> mlxk_core::Result<(Model, Option<TempDir>)> {
    let Some(tensors) = &expected.tensors else {
        return Ok((model::load(path)?, None));
    };
    let config = fs::read(path.join("config.json")).unwrap();
    let tensor = |drawn: &Drawn| (drawn.0.clone(), drawn.tensor(expected.seed));
    let draft = Draft {
        config: serde_json::from_slice(&config).unwrap(),
        tensors: tensors.iter().map(tensor).collect(),
    };
    draft.load().map(|(model, dir)| (model, Some(dir)))
}

/// How far logits may be apart, relative to the largest: 16-bit floats are rounded.
fn tolerance(path: &Path, expected: &Expected) -> f32 {
    let drawn = expected.tensors.iter().flatten().any(|drawn| drawn.1 == Dtype::BF16);
    let narrow = drawn || path.file_name().is_some_and(|name| name == "llama-rope3-tied");
    if narrow { 2e-2 } else { 2e-4 }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    all
}
