//! Transcriptions are those of openai-whisper and transformers, on tiny models in each form.
//!
//! A case is a folder of `tests/data/speech`, as is `expected.json` in it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_rs::Array;
use mlxk_core::quantization::Mode;
use mlxk_core::{Found, Inspected, Origin, Places, inspect};
use mlxk_engine::{Attempt, Prompt, Timed, Transcriber, WindowDecoder};
use mlxk_models::convert::{Change, Quantize, Recipe, convert};
use mlxk_processor::audio::{LogMel, MelOptions};
use mlxk_processor::transcript::{Segment, TranscribeOptions, TranscriptEvent};
use mlxk_tensor::cache::Sequences;
use serde_json::Value;
use tempfile::TempDir;

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
    let expected = fs::read(path.join("expected.json")).unwrap();
    (load_at(&path, on_cpu), serde_json::from_slice(&expected).unwrap())
}

fn load_at(path: &Path, on_cpu: bool) -> Transcriber {
    let Inspected { facts, plan, .. } = inspected(path);
    assert_eq!(plan.runnable, Ok(()));
    Transcriber::load_for(&facts, &plan, on_cpu).unwrap()
}

/// States of the encoder, one position after another.
fn states(decoder: &WindowDecoder) -> Vec<f32> {
    let states = decoder.run(|| {
        let states = decoder.network.encode(&Array::from_slice(&mel(), &[1, 3000, 80]))?;
        Ok(states.as_type::<f32>()?.to_vec_exact::<f32>().unwrap())
    });
    states.unwrap()
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
    let (states, encoder) = (states(decoder), &expected["encoder"]);
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

#[test]
fn words_have_the_times_of_openai() {
    for on_cpu in [true, false] {
        let (transcriber, expected) = load("whisper-mlx-npz", on_cpu);
        let decoder = transcriber.window_decoder().unwrap();
        let want = &expected["word_alignment"];
        let heard = decoder.hear(&mel(), BANDS).unwrap();
        let language = decoder.vocabulary.language("en").unwrap();
        let prompt = Prompt { language, ..Prompt::default() };
        let frames = want["num_frames"].as_u64().unwrap() as usize;
        // The heads of the case are the last layer's, as for all models of unknown sizes.
        let got = decoder.words(&heard, &prompt, &list(&want["text_ids"]), frames, true).unwrap();
        let want = want["words"].as_array().unwrap();
        assert_eq!(got.len(), want.len());
        for (Timed { text, tokens, start, end, probability }, want) in got.iter().zip(want) {
            let number = |at: usize| want[at].as_f64().unwrap();
            assert_eq!((text.as_str(), *tokens), (want[0].as_str().unwrap(), list(&want[1]).len()));
            assert!((start - number(2)).abs() < 0.03 && (end - number(3)).abs() < 0.03, "{got:?}");
            // MLX computes in 16 bits here.
            let most = if on_cpu { 1e-3 } else { 1e-2 };
            assert!((f64::from(*probability) - number(4)).abs() < most, "{got:?}");
        }
    }
}

/// What a transcription of `samples` tells.
fn transcribe(
    samples: &[f32],
    options: &TranscribeOptions,
) -> mlxk_core::Result<Vec<TranscriptEvent>> {
    let (transcriber, _) = load("whisper-mlx-npz", true);
    let mut events = Vec::new();
    let mut blocks = samples.chunks(1000).map(|block| Ok(block.to_vec()));
    transcriber.transcribe(&mut blocks, options, &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    })?;
    Ok(events)
}

fn segments(events: &[TranscriptEvent]) -> Vec<&Segment> {
    let all = events.iter().filter_map(|event| match event {
        TranscriptEvent::Segment(segment) => Some(segment),
        _ => None,
    });
    all.collect()
}

/// Options under which everything is heard, and what is written is taken.
fn plain() -> TranscribeOptions {
    TranscribeOptions {
        temperatures: vec![0.0],
        no_speech_threshold: None,
        vad: false,
        ..TranscribeOptions::default()
    }
}

#[test]
fn a_transcription_tells_the_language_the_segments_and_the_end() {
    let events = transcribe(&samples(), &plain()).unwrap();
    assert!(matches!(&events[0], TranscriptEvent::Language { probability: Some(_), .. }));
    assert!(!segments(&events).is_empty());
    assert!(segments(&events).iter().enumerate().all(|(at, segment)| segment.id == at as u64));
    let Some(TranscriptEvent::End(end)) = events.last() else { panic!("{events:?}") };
    assert!((end.duration - 3.7).abs() < 1e-3 && end.tokens > 0);
    let german = TranscribeOptions { language: Some("de".into()), ..plain() };
    let events = transcribe(&samples(), &german).unwrap();
    let language = TranscriptEvent::Language { code: "de".into(), probability: None };
    assert_eq!(events[0], language);
}

#[test]
fn silence_is_not_written_down() {
    let options = TranscribeOptions { vad: true, ..plain() };
    let events = transcribe(&vec![0.0; 16_000 * 40], &options).unwrap();
    let [TranscriptEvent::End(end)] = events.as_slice() else { panic!("{events:?}") };
    assert!((end.duration - 40.0).abs() < 1e-3);
    assert!(matches!(transcribe(&[], &plain()).unwrap().as_slice(), [TranscriptEvent::End(_)]));
}

#[test]
fn clips_are_heard_alone() {
    let options = TranscribeOptions { clips: vec![0.5..1.5, 2.0..3.0], ..plain() };
    let events = transcribe(&samples(), &options).unwrap();
    let starts: Vec<f64> = segments(&events).iter().map(|segment| segment.time.start).collect();
    assert!(starts.iter().all(|&start| start >= 0.5) && starts.iter().any(|&start| start >= 2.0));
    let Some(TranscriptEvent::End(end)) = events.last() else { panic!("{events:?}") };
    assert!(end.duration < 3.5, "what is after the last clip is not heard");
    for (clips, message) in [
        (vec![2.0..1.0], "a clip from 2 to 1 seconds is empty"),
        (
            vec![1.0..2.0, 0.0..3.0],
            "the clip from 0 to 3 seconds starts before the end of the one before",
        ),
    ] {
        let options = TranscribeOptions { clips, ..plain() };
        assert_eq!(transcribe(&samples(), &options).unwrap_err().message, message);
    }
    let unknown = TranscribeOptions { language: Some("xx".into()), ..plain() };
    let refused = transcribe(&samples(), &unknown).unwrap_err();
    assert_eq!(refused.message, "the model knows no language \"xx\"");
}

#[test]
fn windows_that_are_written_together_are_what_they_are_alone() {
    for on_cpu in [true, false] {
        let (transcriber, _) = load("whisper-hf", on_cpu);
        let decoder = transcriber.window_decoder().unwrap();
        let heard = [mel(), vec![0.0; 3000 * BANDS]].map(|mel| decoder.hear(&mel, BANDS).unwrap());
        let language = decoder.vocabulary.language("en").unwrap();
        let prompt = Prompt { language, timestamps: true, ..Prompt::default() };
        for temperature in [0.0, 0.8] {
            let attempt = Attempt { temperature, seed: 7, most: 20 };
            let [a, b] = &heard;
            let together = decoder.decode_all(&[a, b], &prompt, attempt).unwrap();
            for (heard, together) in heard.iter().zip(together) {
                let alone = decoder.decode(heard, &prompt, attempt).unwrap();
                assert_eq!(alone.tokens, together.tokens, "{on_cpu} {temperature}");
                assert!((alone.avg_logprob - together.avg_logprob).abs() < 1e-3);
            }
        }
    }
}

#[test]
fn a_converted_model_has_the_form_of_mlx_and_hears_nearly_the_same() {
    let home = TempDir::new().unwrap();
    let quantize = Quantize::new(Mode::Affine, "8".parse().unwrap(), Some(32)).unwrap();
    let changes = [Change::None, Change::Quantize(quantize)];
    let hub = home.path().join("hub");
    let places = Places { root: hub.clone(), hub: hub.join("hub"), workspaces: None };
    for (case, number) in [("whisper-hf", 0), ("whisper-hf", 1), ("whisper-mlx-npz", 0)] {
        let target = home.path().join(format!("{case}-{number}"));
        let recipe = Recipe { change: changes[number], ..Recipe::default() };
        convert(&data().join(case), &target, &recipe, true, &places, |_| Ok(())).unwrap();
        assert!(!target.join("weights.npz").exists());
        for on_cpu in [true, false] {
            let (original, _) = load(case, true);
            let converted = load_at(&target, on_cpu);
            let want = states(original.window_decoder().unwrap());
            let got = states(converted.window_decoder().unwrap());
            let largest = want.iter().fold(0f32, |most, x| most.max(x.abs()));
            let apart = got.iter().zip(&want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(apart < 0.05 * largest, "{case} {number}: {apart} of {largest}");
            assert_eq!(apart > 1e-3 * largest, number == 1 || case.ends_with("npz") && !on_cpu);
        }
    }
}
