//! Requests to write down speech, as a server sends them, beside requests for text.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlxk_core::{Error, Kind, Places, Record};
use mlxk_engine::{Bounds, CacheOptions, Local};
use mlxk_processor::engine::TranscriptEvents;
use mlxk_processor::request::Preset;
use mlxk_processor::transcript::{
    TranscribeOptions, TranscribeRequest, Transcript, TranscriptEvent,
};
use mlxk_processor::{Engine, Event, Request};
use tempfile::TempDir;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
}

/// A folder with the workspaces `llama` and `whisper`.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    for (name, case) in [("llama", "parity/llama"), ("whisper", "speech/whisper-hf")] {
        let to = home.path().join(name);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(data(case)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    home
}

fn engine(home: &TempDir, queue: u64) -> Local {
    let root: PathBuf = home.path().to_owned();
    let places = Places { hub: root.join("hub"), workspaces: Some(root.clone()), root };
    let bounds = Bounds {
        batch: 8,
        queue,
        memory: 1 << 30,
        ttl: None,
        cache: CacheOptions { prefix_bytes: 1 << 20, ..CacheOptions::default() },
        preset: Preset::default(),
    };
    Local::start(places, bounds, &[]).unwrap()
}

/// Tones of 3.7 seconds, `times` times, which a detector of voices would leave out.
fn request(model: &str, times: usize) -> TranscribeRequest {
    let tones = fs::read(data("audio/tones-16k.wav")).unwrap();
    let mut audio = tones[..44].to_vec();
    (0..times).for_each(|_| audio.extend_from_slice(&tones[44..]));
    let size = (audio.len() - 44) as u32;
    audio[40..44].copy_from_slice(&size.to_le_bytes());
    let options =
        TranscribeOptions { vad: false, temperatures: vec![0.0], ..TranscribeOptions::default() };
    TranscribeRequest { model: model.to_owned(), audio: audio.into(), options }
}

async fn transcript(mut events: TranscriptEvents) -> Result<Transcript, Error> {
    let mut whole = Transcript::default();
    while let Some(event) = events.recv().await {
        let event = event?;
        let ended = matches!(event, TranscriptEvent::End(_));
        whole.push(event);
        if ended {
            return Ok(whole);
        }
    }
    panic!("no end");
}

#[tokio::test]
async fn a_model_is_loaded_for_the_first_request_and_meant_by_those_without_a_name() {
    let home = home();
    let engine = engine(&home, 16);
    let missing = engine.transcribe(request("", 1)).unwrap_err();
    assert!(missing.message.contains("`model` is missing"), "{missing}");
    let first = transcript(engine.transcribe(request("whisper", 1)).unwrap()).await.unwrap();
    assert!(first.language.is_some() && first.probability.is_some());
    assert!((first.end.duration - 3.7).abs() < 0.1, "{:?}", first.end);
    let second = transcript(engine.transcribe(request("", 1)).unwrap()).await.unwrap();
    assert_eq!(first, second);
    assert!(engine.models().unwrap().iter().any(|model| model.id == "whisper" && model.loaded));
}

#[tokio::test]
async fn what_cannot_be_written_down_is_refused_with_what_would_do() {
    let home = home();
    let engine = engine(&home, 16);
    let refusal = transcript(engine.transcribe(request("llama", 1)).unwrap()).await.unwrap_err();
    assert_eq!(refusal.kind, Kind::CapabilityNotSupported);
    assert!(refusal.hint.unwrap().contains("/v1/chat/completions"));
    let record = Record::default().with("prompt", "w1");
    let text = Request::parse(&record, &Preset { raw: true, ..Preset::default() }).unwrap();
    let text = Request { model: "whisper".to_owned(), ..text };
    let refusal = engine.submit(text).unwrap().recv().await.unwrap().unwrap_err();
    assert_eq!(refusal.kind, Kind::CapabilityNotSupported);
    assert!(refusal.hint.unwrap().contains("/v1/audio/transcriptions"));
    let noise = TranscribeRequest { audio: Arc::from(&b"no audio"[..]), ..request("whisper", 1) };
    let refusal = transcript(engine.transcribe(noise).unwrap()).await.unwrap_err();
    assert_eq!((refusal.kind, &refusal.message[..7]), (Kind::Validation, "`file`:"));
}

#[tokio::test]
async fn requests_wait_for_each_other_and_those_that_go_away_end() {
    let home = home();
    let engine = engine(&home, 2);
    let mut long = engine.transcribe(request("whisper", 400)).unwrap();
    long.recv().await.unwrap().unwrap();
    let [mut next, _last] =
        [1, 1].map(|times| engine.transcribe(request("whisper", times)).unwrap());
    assert_eq!(engine.transcribe(request("whisper", 1)).unwrap_err().kind, Kind::QueueFull);
    assert!(next.try_recv().is_err(), "it waits");
    drop(long);
    let late = tokio::time::timeout(Duration::from_secs(60), transcript(next)).await;
    late.unwrap().unwrap();
}

#[tokio::test]
async fn tokens_keep_coming_while_speech_is_written_down() {
    let home = home();
    let engine = engine(&home, 16);
    let mut speech = engine.transcribe(request("whisper", 400)).unwrap();
    speech.recv().await.unwrap().unwrap();
    let record = Record::default().with("prompt", "w5 w9").with("max_tokens", 200);
    let record = record.with("temperature", 0);
    let text = Request::parse(&record, &Preset { raw: true, ..Preset::default() }).unwrap();
    let mut events = engine.submit(Request { model: "llama".to_owned(), ..text }).unwrap();
    let (mut last, mut longest, mut tokens) = (None::<Instant>, Duration::ZERO, 0);
    loop {
        match events.recv().await.unwrap().unwrap() {
            Event::End(_) => break,
            Event::Text(_) => {
                tokens += 1;
                longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                last = Some(Instant::now());
            }
            _ => {}
        }
    }
    assert!(speech.try_recv().is_ok() || !speech.is_closed(), "the speech has ended already");
    println!("{tokens} tokens, at most {longest:?} apart");
    assert!(tokens > 10 && longest < Duration::from_secs(2), "{tokens} tokens, {longest:?}");
}
