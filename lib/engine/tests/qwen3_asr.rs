//! Qwen3-ASR, against what the Python reference computes from the same weights and samples.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_rs::Array;
use mlxk_core::{Inspected, Kind};
use mlxk_engine::Transcriber;
use mlxk_models::checkpoint::cursor::Cursor;
use mlxk_models::checkpoint::quantization::Quantization;
use mlxk_models::checkpoint::weights::{LoadOptions, Weights};
use mlxk_models::speech::{Chat, Speech};
use mlxk_models::{registry, sketch};
use mlxk_processor::audio::{LogMel, MelOptions};
use mlxk_processor::transcript::{SpeechTask, TranscribeOptions, TranscriptEvent};
use mlxk_tensor::ops::{CPU, MLX};
use model::{Draft, apart};
use serde_json::{Value, json};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
}

fn case() -> PathBuf {
    data("speech/qwen3-asr")
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(case().join("expected.json")).unwrap()).unwrap()
}

/// Samples of `tests/data/audio/tones-16k.wav`, 16-bit numbers behind a header of 44 bytes.
fn tones() -> Vec<f32> {
    let bytes = fs::read(data("audio/tones-16k.wav")).unwrap();
    let sample = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0;
    bytes[44..].chunks_exact(2).map(sample).collect()
}

/// The network of the model in `path`, in the form for a CPU or in that for a GPU.
fn network(path: &Path, on_cpu: bool) -> mlxk_core::Result<Chat> {
    let Inspected { facts, plan, .. } = model::inspected(path)?;
    let architecture = plan.architecture.unwrap();
    let checkpoint = sketch::read(&facts, architecture)?;
    let form = LoadOptions {
        ops: if on_cpu { &CPU } else { &MLX },
        widen: on_cpu,
        sketch: false,
        part: None,
    };
    let quantization = Quantization::read(&checkpoint.config)?;
    let mut weights = Weights::new(checkpoint.tensors, quantization, form);
    let load = registry::spec(architecture).load;
    let network = load.run(&checkpoint.config, Cursor::root(&mut weights))?.speech()?;
    weights.finish()?;
    match network {
        Speech::Chat(network) => Ok(network),
        _ => panic!("no language model that hears"),
    }
}

fn features(network: &Chat, samples: &[f32]) -> Array {
    let options = MelOptions { tail: 0, ..MelOptions::whisper(network.tower.bands()) };
    let mel = LogMel::new(&options).whole(samples);
    let shape = [1, mel.frames as i32, mel.bands as i32];
    network.tower.encode(&Array::from_slice(&mel.values, &shape)).unwrap()
}

fn row(features: &Array, row: usize) -> Vec<f32> {
    let width = features.dim(1) as usize;
    let features = features.contiguous().unwrap();
    let all: &[f32] = features.try_as_slice().unwrap();
    all[row * width..][..width].to_vec()
}

#[test]
fn features_are_those_of_the_reference() {
    let expected = expected();
    for on_cpu in [true, false] {
        let features = features(&network(&case(), on_cpu).unwrap(), &tones());
        assert_eq!(json!(features.shape()), expected["audio_features"]["shape"]);
        for (place, numbers) in expected["audio_features"]["rows"].as_object().unwrap() {
            let numbers: Vec<f32> = serde_json::from_value(numbers.clone()).unwrap();
            let own = row(&features, place.parse().unwrap());
            let apart = apart(&numbers, &own[..numbers.len()]);
            assert!(apart < 1e-3, "row {place}, on a CPU {on_cpu}: {apart}");
        }
    }
}

#[test]
fn checkpoints_of_transformers_are_the_same_model() {
    let features = |path: &Path| features(&network(path, true).unwrap(), &tones());
    let mut draft = Draft::at(&case());
    draft.tensors = std::mem::take(&mut draft.tensors)
        .into_iter()
        .map(|(name, mut tensor)| {
            if let (true, &[outs, height, width, ins]) =
                (name.contains("conv2d") && name.ends_with("weight"), &tensor.shape[..])
            {
                let all = tensor.elements();
                let element =
                    |o: usize, i: usize, k: usize| all[(o * height * width + k) * ins + i];
                let turned = (0..outs).flat_map(|o| {
                    (0..ins).flat_map(move |i| (0..height * width).map(move |k| (o, i, k)))
                });
                let turned: Vec<f32> = turned.map(|(o, i, k)| element(o, i, k)).collect();
                tensor = model::Tensor::of(&[outs, ins, height, width], turned);
            }
            (format!("thinker.{name}"), tensor)
        })
        .collect();
    let head = draft.tensors["thinker.model.embed_tokens.weight"].clone();
    draft.tensors.insert("thinker.lm_head.weight".into(), head);
    let dir = draft.write();
    assert_eq!(row(&features(&case()), 20), row(&features(dir.path()), 20));
}

fn transcriber(on_cpu: bool) -> Transcriber {
    let Inspected { facts, plan, .. } = model::inspected(&case()).unwrap();
    Transcriber::load_for(&facts, &plan, on_cpu).unwrap()
}

fn events(
    transcriber: &Transcriber,
    samples: &[f32],
    options: &TranscribeOptions,
) -> mlxk_core::Result<Vec<TranscriptEvent>> {
    let mut events = Vec::new();
    let mut blocks = samples.chunks(16_000).map(|block| Ok(block.to_vec()));
    transcriber.transcribe(&mut blocks, options, &mut |event| {
        events.push(event);
        ControlFlow::Continue(())
    })?;
    Ok(events)
}

/// All sound is heard: the tones are no voice.
fn all() -> TranscribeOptions {
    TranscribeOptions { vad: false, ..TranscribeOptions::default() }
}

fn tokens(events: &[TranscriptEvent]) -> Vec<u32> {
    let segment = |event: &TranscriptEvent| match event {
        TranscriptEvent::Segment(segment) => segment.tokens.clone(),
        _ => Vec::new(),
    };
    events.iter().flat_map(segment).collect()
}

#[test]
fn answers_are_those_of_the_reference() {
    let ids: Vec<u32> = serde_json::from_value(expected()["greedy_ids"].clone()).unwrap();
    for on_cpu in [true, false] {
        // The reference names English if nobody names a language.
        let english = TranscribeOptions { language: Some("en".into()), ..all() };
        let tokens = tokens(&events(&transcriber(on_cpu), &tones(), &english).unwrap());
        // The answer goes round in circles, which are cut.
        let count = tokens.len().min(ids.len());
        assert!(count >= 10, "{tokens:?}");
        assert_eq!(tokens[..count], ids[..count], "on a CPU {on_cpu}");
    }
}

#[test]
fn a_language_and_a_context_go_into_the_prompt() {
    let transcriber = transcriber(true);
    let plain = tokens(&events(&transcriber, &tones(), &all()).unwrap());
    let german = TranscribeOptions { language: Some("de".into()), ..all() };
    let named = events(&transcriber, &tones(), &german).unwrap();
    assert!(tokens(&named) != plain);
    let language = TranscriptEvent::Language { code: "de".into(), probability: None };
    assert!(named.contains(&language), "{named:?}");
    let context = TranscribeOptions { prompt: Some("Fish and chips".into()), ..all() };
    assert!(tokens(&events(&transcriber, &tones(), &context).unwrap()) != plain);
}

#[test]
fn wishes_that_cannot_be_heeded_are_refused() {
    let transcriber = transcriber(true);
    for (options, kind, named) in [
        (
            TranscribeOptions { task: SpeechTask::Translate, ..all() },
            Kind::CapabilityNotSupported,
            "translate",
        ),
        (TranscribeOptions { words: true, ..all() }, Kind::CapabilityNotSupported, "words"),
        (
            TranscribeOptions { temperatures: vec![1.0], ..all() },
            Kind::CapabilityNotSupported,
            "temperature",
        ),
        (TranscribeOptions { language: Some("xx".into()), ..all() }, Kind::Validation, "`xx`"),
    ] {
        let error = events(&transcriber, &tones(), &options).unwrap_err();
        assert_eq!(error.kind, kind);
        assert!(error.to_string().contains(named), "{error}");
    }
}
