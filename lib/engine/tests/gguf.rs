//! The engine computes of an imported GGUF file what the Python reference computes of the checkpoint
//! that llama.cpp's converter made the file of.
//!
//! The files in `tests/data/gguf` are tiny models of each architecture; `tests/make-gguf` makes them.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use mlxk_gguf::{Float, Quantized, Source};
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Deserialize)]
struct Expected {
    prompt_ids: Vec<u32>,
    logits_head: Vec<f32>,
    logits_absmax: f32,
    greedy_ids: Vec<u32>,
}

#[test]
fn all_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/gguf");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "gz"));
    files.sort();
    assert!(files.len() > 50);
    let failures: Vec<_> = files.iter().filter_map(|file| agrees(file).err()).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), files.len(), failures.join("\n"));
}

/// Says what is not as the reference has it in the file `path`.
fn agrees(path: &Path) -> Result<(), String> {
    let case = path.file_name().unwrap().to_str().unwrap().trim_end_matches(".gguf.gz");
    let at = |what: String| format!("{case}: {what}");
    let expected = fs::read(path.with_file_name(format!("{case}.json"))).unwrap();
    let expected: Expected = serde_json::from_slice(&expected).unwrap();
    let workspace = import(path).map_err(at)?;
    for on_cpu in [true, false] {
        let mut model = model::load_for(workspace.path(), on_cpu).map_err(|e| at(e.to_string()))?;
        let logits = model.logits(&expected.prompt_ids).map_err(|e| at(e.to_string()))?;
        let apart = |(got, want): (&f32, &f32)| (got - want).abs() / expected.logits_absmax;
        let most = logits.iter().zip(&expected.logits_head).map(apart).fold(0.0, f32::max);
        if most.is_nan() || most > 2e-4 {
            return Err(at(format!("logits are {most} apart")));
        }
        let tokens = model.tokens(&expected.prompt_ids, &model::GREEDY).unwrap();
        let ids: Vec<_> = tokens.take(expected.greedy_ids.len()).map(Result::unwrap).collect();
        if ids != expected.greedy_ids {
            return Err(at(format!("{ids:?}, not {:?}", expected.greedy_ids)));
        }
    }
    Ok(())
}

/// The workspace that comes of the packed file `path`.
fn import(path: &Path) -> Result<TempDir, String> {
    let workspace = TempDir::new().unwrap();
    let file = workspace.path().join("model.gguf");
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    fs::write(&file, bytes).unwrap();
    let source = Source::open(&file).unwrap();
    let plan = source.plan(Some(Float::F32), Quantized::Keep).map_err(|e| e.to_string())?;
    plan.write(workspace.path(), |_| Ok(())).map_err(|e| e.to_string())?;
    fs::remove_file(file).unwrap();
    Ok(workspace)
}
