//! The engine computes what the Python reference computes, on a tiny model of each kind.
//!
//! A case is a folder of `tests/data/parity`; `tests/make-parity` makes them. `PARITY=DIR` names a
//! folder of further ones.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use mlxk_core::tensors::Dtype;
use mlxk_engine::Model;
use model::Draft;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    prompt_ids: Vec<u32>,
    logits_head: Vec<f32>,
    logits_absmax: f32,
    greedy_ids: Vec<u32>,
}

#[test]
fn all_cases() {
    let mut cases = folders(&model::parity(""));
    if let Some(more) = env::var_os("PARITY") {
        cases.extend(folders(Path::new(&more)));
    }
    assert!(cases.len() >= 8);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = thread::scope(|scope| {
        let share = |core| {
            let own = cases.iter().skip(core).step_by(cores);
            scope.spawn(move || own.filter_map(|case| agrees(case).err()).collect::<Vec<_>>())
        };
        let shares: Vec<_> = (0..cores).map(share).collect();
        shares.into_iter().flat_map(|share| share.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Says what is not as the reference has it in the case `path`.
fn agrees(path: &Path) -> Result<(), String> {
    let case = path.file_name().unwrap().display();
    let expected: Expected =
        serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap();
    let draft = Draft::at(path);
    let narrow =
        { draft.tensors.values() }.any(|tensor| [Dtype::BF16, Dtype::F16].contains(&tensor.dtype));
    // Relative to the largest logit.
    let tolerance = if narrow { 2e-2 } else { 2e-4 };
    let place = draft.write();
    for (form, on_cpu, chunks) in [("CPU", true, &[5, 2048][..]), ("GPU", false, &[2048])] {
        let mut model =
            model::load_for(place.path(), on_cpu).map_err(|e| format!("{case}: {e}"))?;
        for &chunk in chunks {
            model.forward.prefill_chunk = chunk;
            continues(&mut model, &expected, tolerance)
                .map_err(|e| format!("{case} in the form for a {form}, chunks of {chunk}: {e}"))?;
        }
    }
    Ok(())
}

/// Says what `model` says otherwise than `expected`.
fn continues(model: &mut Model, expected: &Expected, tolerance: f32) -> Result<(), String> {
    let logits = model.logits(&expected.prompt_ids).map_err(|e| e.to_string())?;
    let apart = |(got, want): (&f32, &f32)| (got - want).abs() / expected.logits_absmax;
    let apart: Vec<f32> = logits.iter().zip(&expected.logits_head).map(apart).collect();
    if let Some(most) = apart.iter().find(|&apart| !(..=tolerance).contains(apart)) {
        return Err(format!("logits are {most} apart"));
    }
    let tokens = model.tokens(&expected.prompt_ids, &model::GREEDY).unwrap();
    let alone: Vec<u32> = tokens.take(24).map(Result::unwrap).collect();
    for (how, ids) in [("alone", alone), ("among others", among_others(model, expected))] {
        if ids != expected.greedy_ids {
            return Err(format!("{how} {ids:?}, not {:?}", expected.greedy_ids));
        }
    }
    Ok(())
}

/// The continuation while sequences of other lengths share its steps; one leaves on the way.
fn among_others(model: &mut Model, expected: &Expected) -> Vec<u32> {
    let prompt = &expected.prompt_ids;
    let longer: Vec<u32> = prompt.iter().rev().take(9).chain(prompt).copied().collect();
    let mut join = |prompt: &[u32]| model.join(prompt, model::GREEDY, None).unwrap();
    let [short, text, long] = [join(&prompt[..3]), join(prompt), join(&longer)];
    let mut ids = Vec::new();
    while ids.len() < expected.greedy_ids.len() {
        let step = model.step().unwrap();
        let tokens = step.into_iter().filter(|(number, _)| *number == text);
        ids.extend(tokens.map(|(_, token)| token.unwrap().id));
        if ids.len() == 5 {
            model.leave(short);
        }
    }
    model.leave(text);
    model.leave(long);
    ids
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    all
}
