//! Transcriptions are those of openai-whisper and transformers, on tiny models in each form.
//!
//! A case is a folder of `tests/data/speech`, as is `expected.json` in it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};

use mlx_rs::Array;
use mlxk_core::{Found, Inspected, Origin, inspect};
use mlxk_engine::{Attempt, Prompt, Transcriber, WindowDecoder};
use mlxk_processor::audio::{LogMel, MelOptions};
use mlxk_tensor::cache::Sequences;
use serde_json::Value;

const BANDS: usize = 80;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/speech")
}

fn inspected(path: &Path) -> Inspected {
    let name = path.display().to_string();
    let (path, origin) = (path.to_owned(), Origin::Workspace);
    inspect(&Found { name, path, revision: None, origin }).unwrap()
}

fn load(case: &str, on_cpu: bool) -> (Transcriber, Value) {
    let path = data().join(case);
    let Inspected { facts, plan, .. } = inspected(&path);
    assert_eq!(plan.runnable, Ok(()));
    let expected = fs::read(path.join("expected.json")).unwrap();
    let expected = serde_json::from_slice(&expected).unwrap();
    (Transcriber::load_for(&facts, &plan, on_cpu).unwrap(), expected)
}

/// Samples of the tones.
fn samples() -> Vec<f32> {
    let bytes = fs::read(data().join("../audio/tones-16k.wav")).unwrap();
    let words = bytes[44..].as_chunks().0.iter();
    words.map(|&word| f32::from(i16::from_le_bytes(word)) / 32768.0).collect()
}

/// The window [3000, 80] of the tones and silence.
fn mel() -> Vec<f32> {
    let mut mel = LogMel::new(&MelOptions::whisper(BANDS)).whole(&samples()).values;
    mel.truncate(3000 * BANDS);
    mel
}

#[track_caller]
fn near(got: &[f32], want: &Value, largest: &Value, what: &str) {
    let want: Vec<f32> = serde_json::from_value(want.clone()).unwrap();
    let most = largest.as_f64().unwrap() as f32;
    let apart = got.iter().zip(&want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(apart <= 2e-4 * most, "{what}: {apart} apart");
}

fn list(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Rows of the encoder and logits after the first tokens.
fn check_network(decoder: &WindowDecoder, expected: &Value) {
    let states = decoder.run(|| {
        let states = decoder.network.encode(&Array::from_slice(&mel(), &[1, 3000, 80]))?;
        Ok(states.as_type::<f32>()?.to_vec_exact::<f32>().unwrap())
    });
    let (states, encoder) = (states.unwrap(), &expected["encoder"]);
    let size = encoder["shape"][1].as_u64().unwrap() as usize;
    for (row, want) in encoder["rows"].as_object().unwrap() {
        let row: usize = row.parse().unwrap();
        near(&states[row * size..][..size], want, &encoder["absmax"], "encoder");
    }
    let heard = decoder.hear(&mel(), BANDS).unwrap();
    let after = list(&expected["logits"]["after"]);
    let logits = decoder.run(|| {
        let mut cache = decoder.network.cache();
        let ids = Array::from_slice(&after, &[1, after.len() as i32]);
        let mut sequence = Sequences::one(&mut cache, after.len() as i32).at_once(decoder.on_cpu);
        let h = decoder.network.forward(&ids, &mut sequence, &[&heard])?;
        let logits = decoder.network.head(&h)?.as_type::<f32>()?;
        Ok(logits.to_vec_exact::<f32>().unwrap())
    });
    let logits = logits.unwrap();
    let last = &logits[(after.len() - 1) * decoder.network.sizes().vocabulary..];
    near(last, &expected["logits"]["head"], &expected["logits"]["absmax"], "logits");
    for (id, want) in expected["logits"]["at"].as_object().into_iter().flatten() {
        let id: usize = id.parse().unwrap();
        let want = Value::Array(vec![want.clone()]);
        near(&last[id..=id], &want, &expected["logits"]["absmax"], "logits");
    }
}

#[test]
fn ids_are_those_of_openai_for_the_form_of_mlx() {
    for on_cpu in [true, false] {
        let (transcriber, expected) = load("whisper-mlx-npz", on_cpu);
        let decoder = transcriber.window_decoder().unwrap();
        if on_cpu {
            check_network(decoder, &expected);
        }
        let words = &decoder.vocabulary;
        let heard = decoder.hear(&mel(), BANDS).unwrap();
        let languages = decoder.languages(&heard).unwrap();
        let likeliest = (0..languages.len()).max_by(|&a, &b| languages[a].total_cmp(&languages[b]));
        assert_eq!(words.languages[likeliest.unwrap()].0, "haw");
        let language = |code: &str| words.language(code).unwrap();
        let prompt = Prompt { language: language("en"), ..Prompt::default() };
        let previous = words.tokenizer.encode_part(" hello world").unwrap();
        let cases = [
            ("no_timestamps", prompt.clone()),
            ("timestamps", Prompt { timestamps: true, ..prompt.clone() }),
            (
                "translate_de",
                Prompt { language: language("de"), translate: true, ..prompt.clone() },
            ),
            ("prompted", Prompt { previous, ..prompt }),
        ];
        for (name, prompt) in cases {
            let want = &expected["decode"][name];
            let most = list(&want["ids"]).len();
            let attempt = Attempt { temperature: 0.0, seed: 0, most };
            let got = decoder.decode(&heard, &prompt, attempt).unwrap();
            assert_eq!(got.tokens, list(&want["ids"]), "{name} {on_cpu}");
            assert_eq!(got.text.trim(), want["text"].as_str().unwrap().trim());
            if let Some(logprob) = want["avg_logprob"].as_f64().filter(|_| on_cpu) {
                assert!((f64::from(got.avg_logprob) - logprob).abs() < 1e-3, "{name}");
            }
        }
        let marks = list(&expected["suppress_non_speech"]);
        assert!(marks.iter().all(|mark| words.suppressed.contains(mark)));
        assert_eq!(words.suppressed.len(), marks.len() + 6);
    }
}

#[test]
fn ids_are_those_of_transformers_for_its_form() {
    for on_cpu in [true, false] {
        let (transcriber, expected) = load("whisper-hf", on_cpu);
        let decoder = transcriber.window_decoder().unwrap();
        check_network(decoder, &expected);
        let words = &decoder.vocabulary;
        let heard = decoder.hear(&mel(), BANDS).unwrap();
        let languages = decoder.languages(&heard).unwrap();
        let likeliest = (0..languages.len()).max_by(|&a, &b| languages[a].total_cmp(&languages[b]));
        assert_eq!(words.languages[likeliest.unwrap()].0, "ba");
        for (name, code, translate, timestamps) in [
            ("no_timestamps", "en", false, false),
            ("timestamps", "en", false, true),
            ("translate_de", "de", true, false),
        ] {
            let language = words.language(code).unwrap();
            let prompt = Prompt { language, translate, timestamps, previous: Vec::new() };
            let want = list(&expected["decode"][name]["sequence"]);
            let start = decoder.start(&prompt);
            let attempt = Attempt { temperature: 0.0, seed: 0, most: want.len() - start.len() };
            let got = decoder.decode(&heard, &prompt, attempt).unwrap();
            assert_eq!([start, got.tokens].concat(), want, "{name} {on_cpu}");
        }
    }
}
