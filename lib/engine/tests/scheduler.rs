//! Requests to models of four layers, as a server sends them.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxk_core::{Kind, Places, Record};
use mlxk_engine::{Bounds, CacheOptions, Local};
use mlxk_processor::engine::{
    EmbedInput, EmbedPrompt, EmbedRequest, Embeddings, Events, ScoreRequest,
};
use mlxk_processor::event::{End, FinishReason, LengthLimit};
use mlxk_processor::request::{Preset, Prompt};
use mlxk_processor::{Engine, Event, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with the workspaces `llama` and `qwen`.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    for (name, case) in [("llama", "llama"), ("qwen", "qwen2")] {
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
        cache: CacheOptions { prefix_bytes: 1 << 20, ..CacheOptions::default() },
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
    let parsed = Request::parse(&record, &Preset { raw: true, ..Preset::default() }).unwrap();
    Request { model: model.to_owned(), ..parsed }
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
        assert_eq!((end.prompt_tokens, end.completion_tokens), (5, 12));
        assert_eq!(end.reason, FinishReason::Length(LengthLimit::MaxTokens));
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
async fn who_goes_away_is_not_answered_further_by_more_than_a_token_or_two() {
    let home = home();
    let long = || request("llama", json!({"max_tokens": 1500, "temperature": 0}));
    let (text, _) = answer(engine(&home, bounds(), &[]).submit(long()).unwrap()).await;
    let cache = CacheOptions { prefix_bytes: 1 << 24, ..CacheOptions::default() };
    let engine = engine(&home, Bounds { batch: 1, cache, ..bounds() }, &["llama"]);
    let mut events = engine.submit(long()).unwrap();
    for _ in 0..4 {
        events.recv().await.unwrap().unwrap();
    }
    drop(events);
    // What was computed for who went away is remembered, and tells how much that was.
    let prompt = format!("w5 w9 w2 w7 w11 {text}");
    let whole = request("llama", json!({"prompt": prompt, "max_tokens": 1, "temperature": 0}));
    let (_, end) = answer(engine.submit(whole).unwrap()).await;
    assert_eq!(end.prompt_tokens, 1505);
    assert!((5..100).contains(&end.cached_tokens), "{}", end.cached_tokens);
}

#[tokio::test]
async fn who_goes_away_leaves_the_line() {
    let home = home();
    let engine = engine(&home, bounds(), &["llama"]);
    let endless = || request("llama", json!({"max_tokens": 2000}));
    let mut events = engine.submit(endless()).unwrap();
    assert!(matches!(events.recv().await, Some(Ok(Event::Started { prompt_tokens: 5, .. }))));
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
async fn a_short_prompt_is_answered_while_a_long_one_is_read() {
    let home = home();
    let config = home.path().join("llama/config.json");
    let known = fs::read_to_string(&config).unwrap();
    fs::write(&config, known.replace("2048", "100000")).unwrap();
    let engine = engine(&home, bounds(), &["llama"]);
    let words = "w5 w9 w2 w7 ".repeat(7000);
    let mut long = engine.submit(request("llama", json!({"prompt": words}))).unwrap();
    assert!(matches!(long.recv().await, Some(Ok(Event::Started { prompt_tokens: 28000, .. }))));
    answer(engine.submit(request("llama", json!({}))).unwrap()).await;
    assert!(long.try_recv().is_err(), "the long prompt was read first");
    let (_, end) = answer(long).await;
    assert_eq!(end.completion_tokens, 12);
}

#[tokio::test]
async fn a_queue_has_an_end() {
    let home = home();
    let bounds = Bounds { batch: 1, queue: 2, ..bounds() };
    let engine = engine(&home, bounds, &["llama"]);
    let long = || request("llama", json!({"max_tokens": 500}));
    let mut first = engine.submit(long()).unwrap();
    assert!(matches!(first.recv().await, Some(Ok(Event::Started { .. }))));
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
    let weights = both.figures().weight_bytes;
    let one = engine(&home, Bounds { memory: weights - 1, ..bounds() }, &["llama"]);
    assert_eq!(loaded(&one), ["llama"]);
    let long = one.submit(request("llama", json!({"max_tokens": 200, "temperature": 0}))).unwrap();
    let other = one.submit(request("qwen", json!({}))).unwrap();
    let (text, end) = answer(long).await;
    assert_eq!(end.completion_tokens, 200);
    assert_eq!(answer(other).await.1.completion_tokens, 12);
    assert_eq!(loaded(&one), ["qwen"]);
    let again = one.submit(request("llama", json!({"max_tokens": 200, "temperature": 0}))).unwrap();
    assert_eq!(answer(again).await.0, text);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_memory_is_gone() {
    let home = home();
    let none = engine(&home, Bounds { memory: 1000, ..bounds() }, &[]);
    let events = none.submit(request("llama", json!({}))).unwrap();
    assert_eq!(failure(events).await, Kind::InsufficientMemory);
    let both = engine(&home, bounds(), &["llama"]);
    // A text of 256 tokens or less takes 131 kB.
    let memory = both.figures().weight_bytes + 200_000;
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
    for (model, more, kind) in
        [("nothing", json!({}), Kind::ModelNotFound), (&*path, json!({}), Kind::ModelNotFound)]
    {
        assert_eq!(engine.submit(request(model, more)).unwrap_err().kind, kind, "{model}");
    }
    assert_eq!(engine.figures().waiting, 0);
    let long = "w1 ".repeat(3000);
    let events = engine.submit(request("llama", json!({"prompt": long}))).unwrap();
    assert_eq!(failure(events).await, Kind::ContextLengthExceeded);
}

#[tokio::test]
async fn a_model_that_cannot_be_read_hides_no_other() {
    let home = home();
    let repo = home.path().join("hub/models--me--broken");
    fs::create_dir_all(repo.join("snapshots/0")).unwrap();
    fs::write(repo.join("blobs"), "not a directory").unwrap();
    let models = engine(&home, bounds(), &[]).models().unwrap();
    assert_eq!(models.iter().map(|model| &*model.id).collect::<Vec<_>>(), ["llama", "qwen"]);
}

#[tokio::test]
async fn a_count_needs_neither_the_model_nor_room_in_its_window() {
    let home = home();
    let engine = engine(&home, Bounds { memory: 0, ..bounds() }, &[]);
    let long = request("llama", json!({"prompt": "w1 ".repeat(3000)}));
    assert_eq!(engine.count(long).unwrap().await.unwrap().unwrap(), 3000);
    assert_eq!((engine.figures().models, engine.figures().waiting), (0, 0));
}

/// Makes `model` take its time with every conversation.
fn slow_template(home: &TempDir, model: &str) {
    let loops = "{% for a in range(700) %}{% for b in range(700) %}{% endfor %}{% endfor %}";
    fs::write(home.path().join(model).join("chat_template.jinja"), format!("{loops}w1")).unwrap();
}

#[tokio::test]
async fn a_request_that_takes_long_to_understand_holds_up_no_other() {
    let home = home();
    slow_template(&home, "qwen");
    let engine = engine(&home, Bounds { queue: 2, ..bounds() }, &["llama", "qwen"]);
    let slow = || {
        let request = request("qwen", json!({}));
        Request { prompt: Prompt::chat(None, "w5"), ..request }
    };
    let mut slow_one = engine.submit(slow()).unwrap();
    answer(engine.submit(request("llama", json!({}))).unwrap()).await;
    assert!(slow_one.try_recv().is_err());
    let count = engine.count(slow()).unwrap();
    assert_eq!(engine.count(slow()).unwrap_err().kind, Kind::QueueFull);
    assert_eq!(answer(slow_one).await.1.prompt_tokens, 1);
    assert_eq!(count.await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn with_rules_a_request_waits_for_room_as_without() {
    let home = home();
    fs::write(home.path().join("qwen/tokenizer_config.json"), r#"{"eos_token":"w0"}"#).unwrap();
    let weights = engine(&home, bounds(), &["llama", "qwen"]).figures().weight_bytes;
    let one = engine(&home, Bounds { memory: weights - 1, ..bounds() }, &["llama"]);
    let mut long = one.submit(request("llama", json!({"max_tokens": 200}))).unwrap();
    assert!(matches!(long.recv().await, Some(Ok(Event::Started { .. }))));
    let ruled = request("qwen", json!({"grammar": "start: (\" w1\" | \" w2\")+"}));
    let (text, _) = answer(one.submit(ruled).unwrap()).await;
    assert!(text.split_whitespace().all(|word| word == "w1" || word == "w2"), "{text}");
    assert_eq!(answer(long).await.1.completion_tokens, 200);
}

#[tokio::test]
async fn an_answer_of_any_length_ends_where_memory_does() {
    let home = home();
    let all = engine(&home, bounds(), &["llama"]);
    let weights = all.figures().weight_bytes;
    let asked = all.submit(request("llama", json!({"max_tokens": 1995}))).unwrap();
    while all.figures().sequence_bytes == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let token = all.figures().sequence_bytes / 2000;
    drop(asked);
    let open = || request("llama", json!({"max_tokens": null}));
    let memory = weights + token * (5 + 1024 + 500);
    let little = engine(&home, Bounds { memory, ..bounds() }, &["llama"]);
    let (_, end) = answer(little.submit(open()).unwrap()).await;
    assert_eq!(end.reason, FinishReason::Length(LengthLimit::Memory));
    assert_eq!(end.completion_tokens, 1024);
    let (_, end) = answer(all.submit(open()).unwrap()).await;
    assert_eq!(end.reason, FinishReason::Length(LengthLimit::ContextLength));
    assert_eq!(end.completion_tokens, 2043);
}

#[tokio::test]
async fn models_share_the_memory_for_texts_that_are_over() {
    let home = home();
    // A text takes 131 kB.
    let cache = CacheOptions { prefix_bytes: 200_000, ..CacheOptions::default() };
    let engine = engine(&home, Bounds { cache, ..bounds() }, &["llama"]);
    let ask = async |model| {
        answer(engine.submit(request(model, json!({}))).unwrap()).await.1.cached_tokens
    };
    assert_eq!((ask("llama").await, ask("llama").await), (0, 4));
    ask("qwen").await;
    assert_eq!(ask("llama").await, 0);
}

/// A folder with the workspaces `llama`, `bert`, which embeds, and `rank`, which reranks, and the
/// expected vectors and scores of these.
fn search_home() -> (TempDir, [Value; 2]) {
    let home = home();
    let expected = [("bert", "bert-mean"), ("rank", "bert-rerank")].map(|(name, case)| {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/embed").join(case);
        copy(&data, &home.path().join(name));
        serde_json::from_slice(&fs::read(data.join("expected.json")).unwrap()).unwrap()
    });
    (home, expected)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => fs::write(target, fs::read(&path).unwrap()).unwrap(),
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    serde_json::from_value(list.clone()).unwrap()
}

fn texts(texts: &[String]) -> EmbedRequest {
    let inputs = texts.iter().cloned().map(EmbedInput::Text).collect();
    EmbedRequest { model: "bert".to_owned(), inputs, truncate: true, ..EmbedRequest::default() }
}

async fn embed(engine: &Local, request: EmbedRequest) -> mlxk_core::Result<Embeddings> {
    engine.embed(request)?.await.unwrap()
}

#[tokio::test]
async fn vectors_are_those_of_the_model_beside_others_and_beside_text() {
    let (home, [bert, _]) = search_home();
    let engine = engine(&home, bounds(), &["llama", "bert"]);
    let expected: Vec<Vec<f32>> = serde_json::from_value(bert["embeddings"].clone()).unwrap();
    let some = strings(&bert["texts"]);
    let many: Vec<String> = some.iter().cycle().take(2048).cloned().collect();
    let mut long = engine.submit(request("llama", json!({"max_tokens": 200}))).unwrap();
    let large = engine.embed(texts(&many)).unwrap();
    // An empty name means the embedding model in memory.
    let small = EmbedRequest { model: String::new(), ..texts(&some) };
    let small = embed(&engine, small).await.unwrap();
    let mut written = 0;
    while let Ok(event) = long.try_recv() {
        written += u32::from(matches!(event.unwrap(), Event::Text(_)));
    }
    assert!(written < 200, "the small request waits for nothing that is long");
    let large = large.await.unwrap().unwrap();
    answer(long).await;
    let ids: Vec<Vec<u32>> = serde_json::from_value(bert["ids"].clone()).unwrap();
    assert_eq!(small.prompt_tokens, ids.iter().map(Vec::len).sum::<usize>() as u64);
    assert_eq!(small.truncated, ids.iter().filter(|ids| ids.len() == 48).count() as u64);
    let got = small.vectors.iter().zip(&expected);
    let got = got.chain(large.vectors.iter().zip(expected.iter().cycle()));
    for (vector, expected) in got {
        let apart = vector.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(vector.len() == expected.len() && apart.fold(0f32, f32::max) < 1e-5);
    }
    assert_eq!(large.vectors.len(), 2048);
    let figures = engine.figures();
    assert_eq!((figures.waiting, figures.models), (0, 2));
}

#[tokio::test]
async fn scores_are_those_of_the_reranker() {
    let (home, [_, rank]) = search_home();
    let engine = engine(&home, bounds(), &["rank"]);
    let [queries, documents] = ["queries", "documents"].map(|key| strings(&rank[key]));
    let score = async |queries: Vec<String>, raw: bool| {
        let documents = documents.clone();
        let model = String::new();
        let request = ScoreRequest { model, queries, documents, raw, truncate: true };
        engine.score(request).unwrap().await.unwrap()
    };
    let near = |got: &[f32], want: &Value| {
        let want: Vec<f32> = serde_json::from_value(want.clone()).unwrap();
        let apart = got.iter().zip(&want).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0f32, f32::max) < 1e-4, "{got:?} for {want:?}");
    };
    let scores = score(vec![queries[0].clone()], false).await.unwrap();
    assert_eq!(scores.scores.len(), documents.len());
    near(&scores.scores, &rank["scores"]);
    let raw = score(vec![queries[0].clone()], true).await.unwrap().scores;
    // The model states that its scores are logits.
    near(&raw, &rank["scores"]);
    let refused = score(vec!["a".to_owned(); documents.len() + 1], false).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Validation);
}

#[tokio::test]
async fn a_request_that_the_model_cannot_answer_is_refused_with_the_reason() {
    let (home, [bert, _]) = search_home();
    let engine = engine(&home, bounds(), &[]);
    let text = || texts(&["the cat".to_owned()]);
    let mut refused = Vec::new();
    for request in [
        EmbedRequest { model: String::new(), ..text() },
        EmbedRequest { dimensions: Some(1000), ..text() },
        EmbedRequest { prompt: EmbedPrompt::Named("none".to_owned()), ..text() },
        EmbedRequest { inputs: vec![EmbedInput::Tokens(vec![1 << 20])], ..text() },
        EmbedRequest { truncate: false, ..texts(&["a".to_owned(), "the cat ".repeat(99)]) },
        EmbedRequest { inputs: vec![EmbedInput::Tokens(vec![5; 48]); 6300], ..text() },
        EmbedRequest { model: "llama".to_owned(), ..text() },
        EmbedRequest { model: "rank".to_owned(), ..text() },
    ] {
        let error = embed(&engine, request).await.unwrap_err();
        refused.push((error.kind, error.message + " | " + error.hint.as_deref().unwrap_or("")));
    }
    let expected = [
        (Kind::Validation, "`model` is missing"),
        (Kind::Validation, "`dimensions` is 1000, and the model's vectors have 32"),
        (Kind::Validation, "the model has no prompt \"none\""),
        (Kind::Validation, "token 1048576 is not among"),
        (Kind::ContextLengthExceeded, "input 1: the text has more than the 48 tokens"),
        (Kind::Validation, "more than 300000 tokens"),
        (Kind::CapabilityNotSupported, "POST /v1/chat/completions"),
        (Kind::CapabilityNotSupported, "POST /v1/rerank"),
    ];
    for ((kind, told), (expected, part)) in refused.iter().zip(expected) {
        assert!(*kind == expected && told.contains(part), "{kind:?}: {told}");
    }
    let events = engine.submit(request("bert", json!({}))).unwrap();
    assert_eq!(failure(events).await, Kind::CapabilityNotSupported);
    let ids: Vec<String> = engine.models().unwrap().into_iter().map(|model| model.id).collect();
    assert_eq!(ids, ["bert", "llama", "qwen", "rank"]);
    // What was refused holds no place, and a good request is answered.
    let some = strings(&bert["texts"]);
    assert_eq!(embed(&engine, texts(&some)).await.unwrap().vectors.len(), some.len());
    assert_eq!(engine.figures().waiting, 0);
}

#[tokio::test]
async fn an_embedding_model_is_unloaded_for_another_model() {
    let (home, [bert, _]) = search_home();
    let size =
        |name: &str| fs::metadata(home.path().join(name).join("model.safetensors")).unwrap().len();
    let memory = size("bert").max(size("rank")) + 1000;
    let engine = engine(&home, Bounds { memory, ..bounds() }, &["rank"]);
    let some = strings(&bert["texts"]);
    embed(&engine, texts(&some)).await.unwrap();
    let loaded: Vec<String> = {
        let models = engine.models().unwrap().into_iter().filter(|model| model.loaded);
        models.map(|model| model.id).collect()
    };
    assert_eq!(loaded, ["bert"]);
    assert_eq!(engine.figures().models, 1);
}
