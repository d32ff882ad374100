//! Parakeet, against what the Python reference computes from the same weights and spectra.
//!
//! A case is a folder of `tests/data/speech`; `tests/make-speech` made its `expected.json` with
//! mlx-audio 0.6.2.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlx_rs::Array;
use mlxk_core::{Architecture, Inspected, Kind};
use mlxk_engine::Transcriber;
use mlxk_engine::transcribe::timed::TimedToken;
use mlxk_engine::transcribe::{ctc, transducer};
use mlxk_models::checkpoint::cursor::Cursor;
use mlxk_models::checkpoint::quantization::Quantization;
use mlxk_models::checkpoint::weights::{LoadOptions, Weights};
use mlxk_models::speech::Speech;
use mlxk_models::{registry, sketch};
use mlxk_processor::transcript::{Segment, SpeechTask, TranscribeOptions, TranscriptEvent};
use mlxk_tensor::ops::{CPU, MLX};
use model::{Draft, apart};
use serde_json::{Value, json};
use tempfile::TempDir;

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
        _ => panic!("a decoder with attention"),
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
            assert_eq!(expected["shape"], json!([rows, hidden]), "{case}");
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

/// Transcriber of a case whose weights are drawn, or are in `path`.
fn transcriber(path: &Path, on_cpu: bool) -> (Transcriber, TempDir) {
    let dir = Draft::at(path).write();
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    let Inspected { facts, plan, .. } = model::inspected(dir.path()).unwrap();
    (Transcriber::load_for(&facts, &plan, on_cpu).unwrap(), dir)
}

/// Events of a transcription of `samples`, which come in blocks of a second.
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

fn segments(events: &[TranscriptEvent]) -> Vec<&Segment> {
    let mut segments = Vec::new();
    for event in events {
        if let TranscriptEvent::Segment(segment) = event {
            segments.push(segment);
        }
    }
    segments
}

/// Samples of `tests/data/audio/tones-16k.wav`, 16-bit numbers behind a header of 44 bytes.
fn tones() -> Vec<f32> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/audio/tones-16k.wav");
    let bytes = fs::read(path).unwrap();
    let sample = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0;
    bytes[44..].chunks_exact(2).map(sample).collect()
}

/// Cases, those in the folder that the environment names included.
fn cases() -> Vec<PathBuf> {
    let more = std::env::var_os("SPEECH").map(PathBuf::from);
    let more = more.into_iter().flat_map(|dir| fs::read_dir(dir).unwrap());
    let more = more.map(|entry| entry.unwrap().path());
    let parakeet =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("parakeet");
    CASES.iter().map(|case| path(case)).chain(more.filter(parakeet)).collect()
}

#[test]
fn speech_is_written_with_the_times_of_the_reference() {
    for path in cases() {
        let expected = fs::read(path.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let wanted = expected["heard"]["text"].as_str().or(expected["text"].as_str()).unwrap();
        for on_cpu in [true, false] {
            let (transcriber, _dir) = transcriber(&path, on_cpu);
            let options = TranscribeOptions { words: true, ..TranscribeOptions::default() };
            let events = events(&transcriber, &tones(), &options).unwrap();
            let segments = segments(&events);
            let text: String = segments.iter().map(|segment| segment.text.as_str()).collect();
            assert_eq!(text.trim(), wanted.trim(), "{path:?}, on a CPU {on_cpu}");
            let words = segments.iter().flat_map(|segment| &segment.words);
            let joined: String = words.clone().map(|word| word.text.as_str()).collect();
            assert_eq!(joined, text, "{path:?}");
            assert!(words.clone().all(|word| (0.0..=1.0).contains(&word.probability)));
            let Some(TranscriptEvent::End(end)) = events.last() else { panic!("no end") };
            let duration = tones().len() as f64 / 16_000.0;
            assert_eq!(end.duration, duration);
            let count: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
            assert_eq!(end.tokens as usize, count);
            assert!(words.clone().all(|word| word.time.end <= duration));
            if let Some(tokens) = expected["heard"]["tokens"].as_array() {
                let ids: Vec<u64> = tokens.iter().map(|token| token[0].as_u64().unwrap()).collect();
                let own = segments.iter().flat_map(|segment| &segment.tokens);
                assert_eq!(own.map(|&id| u64::from(id)).collect::<Vec<_>>(), ids, "{path:?}");
            }
        }
    }
}

#[test]
fn long_audio_is_heard_in_parts_as_if_it_were_whole() {
    // CTC decides each row by what is around it: parts differ from the whole near their edges alone.
    let (transcriber, _dir) = transcriber(&path("parakeet-ctc"), true);
    let tones = tones();
    let long: Vec<f32> = tones.iter().copied().cycle().take(16_000 * 300).collect();
    let options = TranscribeOptions { words: true, ..TranscribeOptions::default() };
    let events = events(&transcriber, &long, &options).unwrap();
    let segments = segments(&events);
    let in_order = |pair: &[&Segment]| pair[0].time.start <= pair[1].time.start;
    assert!(segments.len() > 5 && segments.windows(2).all(in_order));
    assert!(segments.iter().map(|segment| segment.id).eq(0..segments.len() as u64));
    // What is said again and again is written about as often within a part as across two.
    let period = tones.len() as f64 / 16_000.0;
    let words = segments.iter().flat_map(|segment| &segment.words);
    let starts: Vec<f64> = words.map(|word| word.time.start).collect();
    assert!(starts.is_sorted());
    let count = |from: f64, to: f64| starts.iter().filter(|&&at| (from..to).contains(&at)).count();
    let inside = count(10.0 * period, 20.0 * period);
    let across = count(25.0 * period, 35.0 * period);
    assert!(inside > 10 && across.abs_diff(inside) * 4 < inside, "{inside} and {across}");
    let first = events.iter().position(|event| matches!(event, TranscriptEvent::Progress(_)));
    assert!(matches!(events[first.unwrap()], TranscriptEvent::Progress(time) if time < 120.0));
}

#[test]
fn clips_are_heard_alone_and_keep_their_times() {
    let (transcriber, _dir) = transcriber(&path("parakeet-tdt"), true);
    let tones = tones();
    let alone = events(&transcriber, &tones, &TranscribeOptions::default()).unwrap();
    let late: Vec<f32> = [&vec![0.0; 160_000], &tones[..], &vec![0.1; 16_000]].concat();
    let end = 10.0 + tones.len() as f64 / 16_000.0;
    let options = TranscribeOptions { clips: vec![10.0..end], ..TranscribeOptions::default() };
    let clip = events(&transcriber, &late, &options).unwrap();
    let (alone, clip) = (segments(&alone), segments(&clip));
    assert_eq!(alone.len(), clip.len());
    for (alone, clip) in alone.iter().zip(clip) {
        assert_eq!(alone.text, clip.text);
        assert!((clip.time.start - alone.time.start - 10.0).abs() < 1e-6);
    }
}

#[test]
fn wishes_that_cannot_be_heeded_are_refused_before_any_audio_is_read() {
    let (transcriber, _dir) = transcriber(&path("parakeet-ctc"), true);
    let default = TranscribeOptions::default;
    for (options, named) in [
        (TranscribeOptions { task: SpeechTask::Translate, ..default() }, "translate"),
        (TranscribeOptions { prompt: Some("a".into()), ..default() }, "prompt"),
        (TranscribeOptions { hotwords: Some("a".into()), ..default() }, "hot words"),
        (TranscribeOptions { language: Some("en".into()), ..default() }, "language"),
        (TranscribeOptions { temperatures: vec![0.5], ..default() }, "temperature"),
    ] {
        let mut unread = std::iter::once_with(|| -> mlxk_core::Result<Vec<f32>> {
            panic!("the audio was read")
        });
        let refused = transcriber.transcribe(&mut unread, &options, &mut |_| panic!("an event"));
        let error = refused.unwrap_err();
        assert_eq!(error.kind, Kind::CapabilityNotSupported);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn next_to_nothing_is_no_speech() {
    for case in ["parakeet-ctc", "parakeet-tdt"] {
        let (transcriber, _dir) = transcriber(&path(case), true);
        for count in [0, 1, 159, 160, 161, 1000] {
            let events =
                events(&transcriber, &vec![0.0; count], &TranscribeOptions::default()).unwrap();
            assert!(matches!(events.last(), Some(TranscriptEvent::End(_))), "{case}, {count}");
        }
    }
}

#[test]
fn configurations_that_cannot_run_are_refused_by_name() {
    let changed = |place: &str, value: Value| {
        let mut draft = Draft::at(&path("parakeet-tdt"));
        let mut config = Value::Object(draft.config.clone());
        *config.pointer_mut(place).unwrap() = value;
        draft.config = config.as_object().unwrap().clone();
        match network(&draft, true) {
            Ok(_) => panic!("{place} was taken"),
            Err(error) => error.to_string(),
        }
    };
    for (place, value, named) in [
        ("/encoder/subsampling", json!("striding"), "subsampling `striding`"),
        ("/encoder/causal_downsampling", json!(true), "causal"),
        ("/encoder/self_attention_model", json!("abs_pos"), "`abs_pos`"),
        ("/encoder/att_context_size", json!([70, 13]), "part of the speech"),
        ("/encoder/n_heads", json!(5), "5 heads"),
        ("/encoder/n_heads", json!(0), "n_heads"),
        ("/encoder/conv_kernel_size", json!(8), "conv_kernel_size"),
        ("/preprocessor/sample_rate", json!(8000), "8000 Hz"),
        ("/preprocessor/normalize", json!("all_features"), "all_features"),
        ("/preprocessor/features", json!(80), "80 mel bands"),
        ("/joint/vocabulary", json!([]), "joint.vocabulary"),
        ("/joint/num_extra_outputs", json!(3), "num_extra_outputs"),
        ("/joint/jointnet/activation", json!("elu"), "`elu`"),
        ("/decoder/prednet/pred_rnn_layers", json!(0), "pred_rnn_layers"),
        ("/target", json!("nemo.collections.asr.models.EncDecMultiTaskModel"), "MultiTask"),
    ] {
        let error = changed(place, value);
        assert!(error.contains(named), "{place}: {error}");
    }
}
