//! Requests to models of four layers, as a server sends them.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mlxk_core::{Kind, Places, Record};
use mlxk_engine::{Bounds, Local};
use mlxk_infer::Memory;
use mlxk_infer::request::Preset;
use mlxk_serve::{End, Engine, Event, Events, Reason, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with the workspaces `llama` and `qwen`.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    for (name, case) in [("llama", "llama"), ("qwen", "qwen3-q4")] {
        let to = home.path().join(name);
        fs::create_dir(&to).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(case);
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
    home
}

fn bounds() -> Bounds {
    Bounds {
        batch: 8,
        queue: 16,
        memory: 1 << 30,
        ttl: None,
        texts: Memory { prefix_bytes: 1 << 20, ..Memory::default() },
        preset: Preset::default(),
    }
}

fn engine(home: &TempDir, bounds: Bounds, models: &[&str]) -> Local {
    let root: PathBuf = home.path().to_owned();
    let places = Places { hub: root.join("hub"), workspaces: Some(root.clone()), root };
    let models: Vec<String> = models.iter().map(|model| (*model).to_owned()).collect();
    Local::start(places, bounds, &models).unwrap()
}

fn request(model: &str, more: Value) -> Request {
    let mut record = Record::default().with("prompt", "w5 w9 w2 w7 w11").with("max_tokens", 12);
    for (name, value) in more.as_object().unwrap() {
        record = record.with(name, value.clone());
    }
    Request { model: model.to_owned(), raw: true, record: Arc::new(record), seed: None }
}

async fn answer(mut events: Events) -> (String, End) {
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        match event.unwrap() {
            Event::Text(more) => text += &more,
            Event::End(end) => return (text, end),
            _ => {}
        }
    }
    panic!("no end");
}

async fn failure(mut events: Events) -> Kind {
    events.recv().await.unwrap().unwrap_err().kind
}

#[tokio::test]
async fn a_seed_gives_the_same_answer_alone_and_among_others() {
    let home = home();
    let engine = engine(&home, bounds(), &["llama"]);
    let seeded = |seed: u64| request("llama", json!({"seed": seed, "temperature": 1.5}));
    let mut alone = Vec::new();
    for seed in 0..8 {
        alone.push(answer(engine.submit(seeded(seed)).unwrap()).await.0);
    }
    assert_ne!(alone[0], alone[1]);
    let together: Vec<_> = (0..8).map(|seed| engine.submit(seeded(seed)).unwrap()).collect();
    for (events, alone) in together.into_iter().zip(alone) {
        let (text, end) = answer(events).await;
        assert_eq!(text, alone);
        assert_eq!((end.reason, end.prompt_tokens, end.completion_tokens), (Reason::Length, 5, 12));
    }
}

#[tokio::test]
async fn what_a_prompt_shares_with_an_earlier_one_is_not_computed_again() {
    let home = home();
    let engine = engine(&home, bounds(), &[]);
    let ask = || request("llama", json!({"temperature": 0}));
    let first = answer(engine.submit(ask()).unwrap()).await;
    let second = answer(engine.submit(ask()).unwrap()).await;
    assert_eq!((first.1.cached_tokens, second.1.cached_tokens), (0, 4));
    assert_eq!(first.0, second.0);
    let count = engine.count(ask()).unwrap().await.unwrap().unwrap();
    assert_eq!(count, 5);
}

#[tokio::test]
async fn who_goes_away_is_not_answered_further() {
    let home = home();
    let engine = engine(&home, bounds(), &["llama"]);
    let endless = || request("llama", json!({"max_tokens": 2000}));
    let mut events = engine.submit(endless()).unwrap();
    assert!(matches!(events.recv().await, Some(Ok(Event::Begun { prompt_tokens: 5 }))));
    drop(events);
    drop(engine.submit(endless()).unwrap());
    answer(engine.submit(request("llama", json!({}))).unwrap()).await;
    for _ in 0..1000 {
        if engine.figures().running == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((engine.figures().running, engine.figures().waiting), (0, 0));
}

#[tokio::test]
async fn a_queue_has_an_end() {
    let home = home();
    let bounds = Bounds { batch: 1, queue: 2, ..bounds() };
    let engine = engine(&home, bounds, &["llama"]);
    let long = || request("llama", json!({"max_tokens": 500}));
    let mut first = engine.submit(long()).unwrap();
    assert!(matches!(first.recv().await, Some(Ok(Event::Begun { .. }))));
    let waiting = [engine.submit(long()).unwrap(), engine.submit(long()).unwrap()];
    assert_eq!(engine.submit(long()).unwrap_err().kind, Kind::QueueFull);
    for events in [first].into_iter().chain(waiting) {
        assert_eq!(answer(events).await.1.completion_tokens, 500);
    }
}

#[tokio::test]
async fn models_take_turns_where_there_is_room_for_one() {
    let home = home();
    let loaded = |engine: &Local| -> Vec<String> {
        let models = engine.models().unwrap().into_iter();
        models.filter(|model| model.loaded).map(|model| model.id).collect()
    };
    let both = engine(&home, bounds(), &["llama", "qwen"]);
    assert_eq!(loaded(&both), ["llama", "qwen"]);
    let weights = both.figures().weights;
    let one = engine(&home, Bounds { memory: weights - 1, ..bounds() }, &["llama"]);
    assert_eq!(loaded(&one), ["llama"]);
    let long = one.submit(request("llama", json!({"max_tokens": 300, "temperature": 0}))).unwrap();
    let other = one.submit(request("qwen", json!({}))).unwrap();
    let (text, end) = answer(long).await;
    assert_eq!(end.completion_tokens, 300);
    assert_eq!(answer(other).await.1.completion_tokens, 12);
    assert_eq!(loaded(&one), ["qwen"]);
    let again = one.submit(request("llama", json!({"max_tokens": 300, "temperature": 0}))).unwrap();
    assert_eq!(answer(again).await.0, text);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_memory_is_gone() {
    let home = home();
    let none = engine(&home, Bounds { memory: 1000, ..bounds() }, &[]);
    let events = none.submit(request("llama", json!({}))).unwrap();
    assert_eq!(failure(events).await, Kind::InsufficientMemory);
    let both = engine(&home, bounds(), &["llama"]);
    let memory = both.figures().weights + 10_000;
    let little = engine(&home, Bounds { memory, ..bounds() }, &["llama"]);
    let long = little.submit(request("llama", json!({"max_tokens": 1000}))).unwrap();
    assert_eq!(failure(long).await, Kind::InsufficientMemory);
    answer(little.submit(request("llama", json!({"max_tokens": 1}))).unwrap()).await;
}

#[tokio::test]
async fn a_model_that_nobody_asks_is_unloaded() {
    let home = home();
    let bounds = Bounds { ttl: Some(Duration::from_millis(100)), ..bounds() };
    let engine = engine(&home, bounds, &["llama"]);
    for _ in 0..100 {
        if engine.figures().models == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(engine.figures().models, 0);
    answer(engine.submit(request("llama", json!({}))).unwrap()).await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused() {
    let home = home();
    let engine = engine(&home, bounds(), &[]);
    let path = home.path().join("llama").display().to_string();
    for (model, more, kind) in [
        ("nothing", json!({}), Kind::ModelNotFound),
        (&*path, json!({}), Kind::ModelNotFound),
        ("l", json!({"temperature": "hot"}), Kind::Validation),
        ("l", json!({"top_p": 2}), Kind::Validation),
    ] {
        assert_eq!(engine.submit(request(model, more)).unwrap_err().kind, kind, "{model}");
    }
    let long = "w1 ".repeat(3000);
    let events = engine.submit(request("llama", json!({"prompt": long}))).unwrap();
    assert_eq!(failure(events).await, Kind::ContextLengthExceeded);
}
