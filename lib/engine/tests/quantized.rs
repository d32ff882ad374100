//! A model that is quantised here answers as the one that the Python reference quantised.
//!
//! The answers in each form are in `quantized.json` beside the cases; `tests/make-quantized` writes it.
//! `QUANTIZED=DIR` names a folder of further cases with theirs.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use mlxk_core::Places;
use mlxk_core::quantization::Mode;
use mlxk_core::tensors::Dtype;
use mlxk_models::convert::{Change, Quantize, Recipe, convert};
use model::Draft;
use serde::Deserialize;
use tempfile::TempDir;

/// The largest logit, the first ones, and the tokens that follow.
#[derive(Deserialize)]
struct Answer(f32, Vec<f32>, Vec<u32>);

/// The answers of a case, by `MODE BITS GROUP_SIZE`.
type Forms = BTreeMap<String, Answer>;

#[derive(Deserialize)]
struct Prompt {
    prompt_ids: Vec<u32>,
}

#[test]
fn every_form_answers_as_that_of_the_reference() {
    let mut cases = golden(&model::parity(""));
    if let Some(more) = env::var_os("QUANTIZED") {
        cases.extend(golden(Path::new(&more)));
    }
    assert!(cases.len() > 20);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = thread::scope(|scope| {
        let share = |core| {
            let own = cases.iter().skip(core).step_by(cores);
            scope
                .spawn(move || own.flat_map(|(case, forms)| agree(case, forms)).collect::<Vec<_>>())
        };
        let shares: Vec<_> = (0..cores).map(share).collect();
        shares.into_iter().flat_map(|share| share.join().unwrap()).collect()
    });
    let all: usize = cases.iter().map(|(_, forms)| forms.len()).sum();
    assert!(failures.is_empty(), "{} of {all}:\n{}", failures.len(), failures.join("\n"));
}

/// The cases in `folder` whose answers are known.
fn golden(folder: &Path) -> Vec<(PathBuf, Forms)> {
    let file = fs::read(folder.join("quantized.json")).unwrap();
    let cases: BTreeMap<String, Forms> = serde_json::from_slice(&file).unwrap();
    cases.into_iter().map(|(case, forms)| (folder.join(case), forms)).collect()
}

/// Says what is not as the reference has it in the case `path`.
fn agree(path: &Path, forms: &Forms) -> Vec<String> {
    let root = TempDir::new().unwrap();
    let draft = Draft::at(path);
    let wide = draft.tensors.values().all(|tensor| tensor.dtype == Dtype::F32);
    fs::create_dir(root.path().join("source")).unwrap();
    draft.write_in(&root.path().join("source"));
    let prompt = fs::read(path.join("expected.json")).unwrap();
    let Prompt { prompt_ids } = serde_json::from_slice(&prompt).unwrap();
    let failure = |(form, expected): (&String, &Answer)| {
        // The form for a GPU leaves it to MLX with how many bits it computes; with 32, as the answers
        // were, where all scales have them.
        let on_cpu = if wide && form.starts_with("affine") { &[true, false][..] } else { &[true] };
        let outcome = quantize(root.path(), form)
            .and_then(|made| answers(&made, &prompt_ids, expected, on_cpu));
        outcome.err().map(|what| format!("{}, {form}: {what}", path.file_name().unwrap().display()))
    };
    forms.iter().filter_map(failure).collect()
}

/// Quantises the model `source` in `root`.
fn quantize(root: &Path, form: &str) -> Result<PathBuf, String> {
    let mut words = form.split(' ');
    let mut next = || words.next().unwrap();
    let (mode, bits, size) = (next(), next(), next());
    let quantize = Quantize::new(
        Mode::find(mode).unwrap(),
        bits.parse().unwrap(),
        Some(size.parse().unwrap()),
    );
    let change = Change::Quantize(quantize.map_err(|e| e.to_string())?);
    let places = Places { root: root.join("hf"), hub: root.join("hf/hub"), workspaces: None };
    let (source, made) = (root.join("source"), root.join(form));
    let recipe = Recipe { change, ..Recipe::default() };
    convert(&source, &made, &recipe, true, &places, |_| Ok(())).map_err(|e| e.to_string())?;
    Ok(made)
}

/// Says what the model in `path` says otherwise than `expected`.
fn answers(path: &Path, prompt: &[u32], expected: &Answer, forms: &[bool]) -> Result<(), String> {
    let Answer(largest, first, ids) = expected;
    for &on_cpu in forms {
        let at = |what: String| format!("{what}, on a CPU {on_cpu}");
        let mut model = model::load_for(path, on_cpu).map_err(|e| at(e.to_string()))?;
        let logits = model.logits(prompt).map_err(|e| at(e.to_string()))?;
        let apart = |(got, want): (&f32, &f32)| (got - want).abs() / largest;
        let most = logits.iter().zip(first).map(apart).fold(0.0, f32::max);
        // Relative to the largest logit.
        if most.is_nan() || most > 2e-4 {
            return Err(at(format!("logits are {most} apart")));
        }
        let tokens = model.tokens(prompt, &model::GREEDY).unwrap();
        let said: Vec<u32> = tokens.take(ids.len()).map(Result::unwrap).collect();
        if said != *ids {
            return Err(at(format!("{said:?}, not {ids:?}")));
        }
    }
    Ok(())
}
