//! Parakeet, against what the Python reference computes from the same weights and spectra.
//!
//! A case is a folder of `tests/data/speech`; `tests/make-speech` made its `expected.json` with
//! mlx-audio 0.6.2.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::path::{Path, PathBuf};

use mlx_rs::Array;
use mlxk_core::Architecture;
use mlxk_engine::transcribe::timed::TimedToken;
use mlxk_engine::transcribe::{ctc, transducer};
use mlxk_models::checkpoint::cursor::Cursor;
use mlxk_models::checkpoint::quantization::Quantization;
use mlxk_models::checkpoint::weights::{LoadOptions, Weights};
use mlxk_models::speech::Speech;
use mlxk_models::{registry, sketch};
use mlxk_tensor::ops::{CPU, MLX};
use model::{Draft, apart};
use serde_json::Value;

const CASES: [&str; 5] =
    ["parakeet-ctc", "parakeet-rnnt", "parakeet-tdt", "parakeet-tdt-4bit", "parakeet-tdt_ctc"];

fn path(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech").join(case)
}

fn expected(case: &str) -> Value {
    serde_json::from_slice(&fs::read(path(case).join("expected.json")).unwrap()).unwrap()
}

/// The network of `draft`, in the form for a CPU or in that for a GPU.
fn network(draft: &Draft, on_cpu: bool) -> mlxk_core::Result<Speech> {
    let dir = draft.write();
    let checkpoint = sketch::read(&model::facts(dir.path())?, Architecture::Parakeet)?;
    let form = LoadOptions {
        ops: if on_cpu { &CPU } else { &MLX },
        widen: on_cpu,
        sketch: false,
        part: None,
    };
    let quantization = Quantization::read(&checkpoint.config)?;
    let mut weights = Weights::new(checkpoint.tensors, quantization, form);
    let spec = registry::spec(Architecture::Parakeet);
    let network = spec.load.run(&checkpoint.config, Cursor::root(&mut weights))?.speech()?;
    weights.finish()?;
    Ok(network)
}

/// The spectrum [1, frames, bands] of `tests/make-speech`.
fn spectrum(frames: usize, bands: usize) -> Array {
    let number = |t: usize, b: usize| ((t * 37 + b * 91 + (t * b) % 53) % 101) as f32 / 50.0 - 1.0;
    let numbers: Vec<f32> =
        (0..frames).flat_map(|t| (0..bands).map(move |b| number(t, b))).collect();
    Array::from_slice(&numbers, &[1, frames as i32, bands as i32])
}

/// Hidden states of the encoder, and the tokens.
fn heard(network: &Speech, mel: &Array) -> (Array, Vec<TimedToken>) {
    match network {
        Speech::Transducer(network) => {
            let tokens = transducer::decode(&**network, mel).unwrap();
            (network.encode(mel).unwrap(), tokens)
        }
        Speech::Ctc(network) => {
            (network.encode(mel).unwrap(), ctc::decode(&**network, mel).unwrap())
        }
        Speech::Attention(_) => panic!("a decoder with attention"),
    }
}

fn bands(draft: &Draft) -> usize {
    draft.config["encoder"]["feat_in"].as_u64().unwrap() as usize
}

#[test]
fn rows_and_tokens_are_those_of_the_reference() {
    for case in CASES {
        let (draft, expected) = (Draft::at(&path(case)), expected(case));
        let frames = expected["frames"].as_u64().unwrap() as usize;
        let mel = spectrum(frames, bands(&draft));
        let wanted: Vec<(u32, usize, usize)> =
            serde_json::from_value(expected["tokens"].clone()).unwrap();
        for on_cpu in [true, false] {
            let (states, tokens) = heard(&network(&draft, on_cpu).unwrap(), &mel);
            let [rows, hidden] = [1, 2].map(|axis| states.dim(axis) as usize);
            assert_eq!(expected["shape"], serde_json::json!([rows, hidden]), "{case}");
            let states = states.reshape(&[-1]).unwrap().contiguous().unwrap();
            let states: &[f32] = states.try_as_slice().unwrap();
            for (row, numbers) in expected["rows"].as_object().unwrap() {
                let numbers: Vec<f32> = serde_json::from_value(numbers.clone()).unwrap();
                let first = row.parse::<usize>().unwrap() * hidden;
                let apart = apart(&numbers, &states[first..first + hidden]);
                assert!(apart < 1e-4, "{case}, on a CPU {on_cpu}, row {row}: {apart}");
            }
            // The reference leaves out what has no text, `<unk>`.
            let tokens = tokens.iter().filter(|token| token.id != 0);
            let tokens: Vec<(u32, usize, usize)> =
                tokens.map(|t| (t.id, t.rows.start, t.rows.end)).collect();
            assert_eq!(tokens, wanted, "{case}, on a CPU {on_cpu}");
        }
    }
}
