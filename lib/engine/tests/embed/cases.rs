//! Cases of embedding models and rerankers, and what tests compare of them.
//!
//! A case is a folder of `tests/data/embed`; `EMBED=DIR` names a folder of further ones. Cases whose
//! names end in `-drawn` have token ids in place of texts, and weights that are drawn.

use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::{Found, Inspected, Origin, Task, inspect};
use mlxk_engine::{EmbedForm, EmbedOptions, Embedder, Input};
use serde_json::Value;
use tempfile::TempDir;

pub fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/embed").join(name)
}

pub fn inspected(path: &Path) -> Inspected {
    let name = path.display().to_string();
    let (path, origin) = (path.to_owned(), Origin::Workspace);
    inspect(&Found { name, path, revision: None, origin }).unwrap()
}

pub fn load(path: &Path, on_cpu: bool) -> mlxk_core::Result<Embedder> {
    let Inspected { facts, plan, .. } = inspected(path);
    Embedder::load_for(&facts, &plan, on_cpu, EmbedForm::default())
}

/// A copy of a case, to change.
pub fn copy(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("1_Pooling")).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ] {
        fs::copy(case(name).join(file), dir.path().join(file)).unwrap();
    }
    dir
}

pub fn write(dir: &Path, file: &str, value: &Value) {
    fs::write(dir.join(file), value.to_string()).unwrap();
}

pub fn expected(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap()
}

pub fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn vectors(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn cut() -> EmbedOptions {
    EmbedOptions { truncate: true, ..EmbedOptions::default() }
}

/// Vectors of texts that share batches.
pub fn embed(embedder: &Embedder, texts: &[String], options: &EmbedOptions) -> Vec<Vec<f32>> {
    let inputs: Vec<_> = texts.iter().map(|text| embedder.input(text, options).unwrap()).collect();
    embedder.embed(&inputs, options).into_iter().map(Result::unwrap).collect()
}

/// Largest difference of two vectors relative to the largest element of `want`, and their cosine.
pub fn compare(got: &[f32], want: &[f32]) -> (f32, f32) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
    let apart = got.iter().zip(want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    (apart / largest, dot(got, want) / (dot(got, got) * dot(want, want)).sqrt())
}

#[track_caller]
pub fn near(name: &str, got: &[Vec<f32>], want: &[Vec<f32>], tolerance: &Value) {
    assert_eq!(got.len(), want.len());
    for (place, (got, want)) in got.iter().zip(want).enumerate() {
        if want.iter().all(|&x| x == 0.0) {
            assert_eq!(got, want);
            continue;
        }
        let (apart, cosine) = compare(got, want);
        let allowed = tolerance["max_abs"].as_f64().unwrap() as f32;
        assert!(apart <= allowed && cosine >= 0.99999, "{name}, {place}: {apart} apart, {cosine}");
    }
}

/// The cases with models of this task, whose weights are drawn or stored.
pub fn cases(task: Task, drawn: bool) -> Vec<PathBuf> {
    let more = std::env::var_os("EMBED").map(PathBuf::from);
    let folders = [Some(case("")), more].into_iter().flatten();
    let entries = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        path.is_dir()
            && path.to_string_lossy().ends_with("-drawn") == drawn
            && inspected(path).plan.task == task
    };
    paths.filter(fits).collect()
}

/// Vectors of sequences of token ids, which share batches or are alone.
pub fn of_ids(embedder: &Embedder, ids: &[Vec<u32>], together: bool) -> Vec<Vec<f32>> {
    let given = |ids: &Vec<u32>| embedder.given(ids.clone(), &cut()).unwrap();
    let inputs: Vec<Input> = ids.iter().map(given).collect();
    let batches = inputs.chunks(if together { ids.len() } else { 1 });
    let vectors = batches.flat_map(|batch| embedder.embed(batch, &cut()));
    vectors.map(Result::unwrap).collect()
}
