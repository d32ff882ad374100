//! Moonshine, against what transformers computes from the same weights and samples.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod model;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mlxk_core::{Inspected, Kind};
use mlxk_engine::Transcriber;
use mlxk_processor::transcript::{SpeechTask, TranscribeOptions, TranscriptEvent};
use serde_json::Value;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
}

fn transcriber(path: &Path, on_cpu: bool) -> Transcriber {
    let Inspected { facts, plan, .. } = model::inspected(path).unwrap();
    Transcriber::load_for(&facts, &plan, on_cpu).unwrap()
}

/// Samples of `tests/data/audio/tones-16k.wav`, 16-bit numbers behind a header of 44 bytes.
fn tones() -> Vec<f32> {
    let bytes = fs::read(data("audio/tones-16k.wav")).unwrap();
    let sample = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0;
    bytes[44..].chunks_exact(2).map(sample).collect()
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

#[test]
fn tokens_and_text_are_those_of_the_reference() {
    let path = data("speech/moonshine");
    let expected: Value =
        serde_json::from_slice(&fs::read(path.join("expected.json")).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(expected["sequence"].clone()).unwrap();
    for on_cpu in [true, false] {
        let events = events(&transcriber(&path, on_cpu), &tones(), &all()).unwrap();
        let TranscriptEvent::Segment(segment) = &events[0] else { panic!("{events:?}") };
        assert_eq!(segment.tokens, ids[1..], "on a CPU {on_cpu}");
        assert_eq!(segment.text.trim(), expected["text"].as_str().unwrap());
        assert!(segment.avg_logprob < 0.0);
        assert_eq!(segment.time, 0.0..tones().len() as f64 / 16_000.0);
        assert_eq!(events.len(), 3);
    }
}

#[test]
fn long_audio_is_heard_in_windows_and_silence_is_not() {
    let transcriber = transcriber(&data("speech/moonshine"), true);
    let long: Vec<f32> = tones().iter().copied().cycle().take(16_000 * 70).collect();
    let windows = events(&transcriber, &long, &all()).unwrap();
    let times = windows.iter().filter_map(|event| match event {
        TranscriptEvent::Segment(segment) => Some(segment.time.clone()),
        _ => None,
    });
    let times: Vec<_> = times.collect();
    assert!(times.len() >= 3, "{times:?}");
    assert!(times.iter().all(|time| time.end - time.start <= 30.0), "{times:?}");
    let silent = events(&transcriber, &vec![0.0; 160_000], &TranscribeOptions::default()).unwrap();
    assert!(
        matches!(silent[..], [TranscriptEvent::End(end)] if end.duration == 10.0),
        "{silent:?}"
    );
}

#[test]
fn next_to_nothing_is_heard_without_an_error() {
    let transcriber = transcriber(&data("speech/moonshine"), true);
    for count in [0, 1, 100, 1000] {
        let events = events(&transcriber, &vec![0.1; count], &all()).unwrap();
        assert!(matches!(events.last(), Some(TranscriptEvent::End(_))), "{count}");
    }
}

#[test]
fn wishes_that_cannot_be_heeded_are_refused() {
    let transcriber = transcriber(&data("speech/moonshine"), true);
    for (options, named) in [
        (TranscribeOptions { task: SpeechTask::Translate, ..all() }, "translate"),
        (TranscribeOptions { prompt: Some("a".into()), ..all() }, "prompt"),
        (TranscribeOptions { words: true, ..all() }, "words"),
        (TranscribeOptions { language: Some("de".into()), ..all() }, "language"),
        (TranscribeOptions { temperatures: vec![1.0], ..all() }, "temperature"),
    ] {
        let error = events(&transcriber, &tones(), &options).unwrap_err();
        assert_eq!(error.kind, Kind::CapabilityNotSupported);
        assert!(error.to_string().contains(named), "{error}");
    }
}
