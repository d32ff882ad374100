//! Requests to events, with a script in place of a model.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use mlxk_core::store::{Found, Origin};
use mlxk_core::{Error, Inspected, Kind, Record, Result, inspect};
use mlxk_engine::{Runner, Source, Step};
use mlxk_processor::event::{End, FinishReason, LengthLimit};
use mlxk_processor::request::{Options, Preset, Prompt};
use mlxk_processor::{Constraint, Event, Request, Sampling, Token};
use serde_json::json;

/// Gives every sequence the tokens 1, 2, 3, ... and keeps what it was asked.
#[derive(Clone, Default)]
struct Script(Rc<RefCell<Scene>>);

#[derive(Default)]
struct Scene {
    asked: Vec<(Vec<u32>, Sampling)>,
    /// The sequences that are being continued, with the last token of each.
    texts: Vec<(u64, u32)>,
    /// Gives a sequence an error in place of this token.
    fails_at: Option<(u64, u32)>,
}

impl Source for Script {
    fn join(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        _: Option<Box<dyn Constraint>>,
    ) -> Result<u64> {
        let mut scene = self.0.borrow_mut();
        scene.asked.push((prompt.to_vec(), sampling));
        let number = scene.asked.len() as u64;
        scene.texts.push((number, 0));
        Ok(number)
    }

    fn step(&mut self) -> Result<Step> {
        let scene = &mut *self.0.borrow_mut();
        let next = |(number, last): &mut (u64, u32)| {
            *last += 1;
            let failed = scene.fails_at == Some((*number, *last));
            let token = Token::new(*last);
            let error = || Error::new(Kind::Execution, "", "the script says so");
            (*number, (!failed).then_some(token).ok_or_else(error))
        };
        let step: Step = scene.texts.iter_mut().map(next).collect();
        scene.texts.retain(|text| scene.fails_at != Some(*text));
        Ok(step)
    }

    fn reused(&self, _: u64) -> u64 {
        0
    }

    fn leave(&mut self, text: u64) {
        self.0.borrow_mut().texts.retain(|(number, _)| *number != text);
    }
}

/// A model of 30 words: `w5` is token 5.
struct Model {
    dir: tempfile::TempDir,
    script: Script,
}

impl Model {
    fn new() -> Model {
        let model = Model { dir: tempfile::tempdir().unwrap(), script: Script::default() };
        let vocabulary = (0..30).map(|id| (format!("w{id}"), json!(id)));
        let vocabulary: serde_json::Map<_, _> = vocabulary.collect();
        model.file(
            "tokenizer.json",
            json!({
                "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy":
                    "LongestFirst", "stride": 0},
                "padding": null, "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
                "post_processor": null, "decoder": null, "added_tokens": [],
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
            }),
        );
        model.file("config.json", json!({"model_type": "llama", "max_position_embeddings": 20}));
        model
    }

    fn file(&self, name: &str, content: serde_json::Value) -> &Model {
        std::fs::write(self.dir.path().join(name), content.to_string()).unwrap();
        self
    }

    fn runner(&self) -> Result<Runner<Script>> {
        let path = self.dir.path().to_owned();
        let name = path.display().to_string();
        let found = Found { name, path, revision: None, origin: Origin::Workspace };
        let Inspected { facts, plan, .. } = inspect(&found)?;
        Runner::new(self.script.clone(), &facts, &plan)
    }

    /// The sequence and the end of an answer.
    fn run(&self, request: &Request) -> Result<(String, End)> {
        let mut runner = self.runner()?;
        let mut text = String::new();
        for event in runner.generate(request, &|| false)? {
            match event? {
                Event::Text(more) => text += &more,
                Event::End(end) => return Ok((text, end)),
                other => panic!("{other:?} was not asked"),
            }
        }
        unreachable!("an answer has an end")
    }

    fn sampling(&self) -> Sampling {
        self.run(&ask("w1", Options::default())).unwrap();
        self.script.0.borrow().asked.last().unwrap().1.clone()
    }
}

fn ask(text: &str, options: Options) -> Request {
    Request { options, ..Request::new(Prompt::Text(text.into())) }
}

fn at_most(max_tokens: u64) -> Options {
    Options { max_tokens: Some(max_tokens), ..Options::default() }
}

#[test]
fn an_answer_ends_at_its_bound_and_says_which() {
    let model = Model::new();
    let (text, end) = model.run(&ask("w7 w8 w9", at_most(3))).unwrap();
    assert_eq!(text, "w1 w2 w3");
    assert_eq!(end.reason, FinishReason::Length(LengthLimit::MaxTokens));
    assert_eq!((end.prompt_tokens, end.completion_tokens), (3, 3));
    let (_, end) = model.run(&ask("w7 w8 w9", at_most(1000))).unwrap();
    assert_eq!(
        (end.reason, end.completion_tokens),
        (FinishReason::Length(LengthLimit::ContextLength), 17)
    );
    model.file("config.json", json!({"model_type": "llama"}));
    let (_, end) = model.run(&ask("w7", Options::default())).unwrap();
    assert_eq!(
        (end.reason, end.completion_tokens),
        (FinishReason::Length(LengthLimit::Default), 32_768)
    );
}

#[test]
fn a_prompt_that_leaves_no_room_is_refused_with_both_numbers() {
    let model = Model::new();
    let e = model.run(&ask(&"w1 ".repeat(20), Options::default())).unwrap_err();
    assert_eq!(e.kind, Kind::ContextLengthExceeded);
    assert!(e.message.contains("20 tokens") && e.message.contains("holds 20"), "{e}");
    assert!(model.script.0.borrow().asked.is_empty());
    let e = model.run(&ask(" ", Options::default())).unwrap_err();
    assert_eq!(e.kind, Kind::Validation);
}

#[test]
fn the_end_tokens_of_the_generation_config_go_before_those_of_the_config() {
    let model = Model::new();
    model.file("config.json", json!({"model_type": "llama", "eos_token_id": 3}));
    let (text, end) = model.run(&ask("w7", Options::default())).unwrap();
    assert_eq!(
        (text.as_str(), end.reason, end.completion_tokens),
        ("w1 w2", FinishReason::Stop, 3)
    );
    model.file("generation_config.json", json!({"eos_token_id": [9, 5]}));
    assert_eq!(model.run(&ask("w7", Options::default())).unwrap().0, "w1 w2 w3 w4");
    model.file("tokenizer_config.json", json!({"eos_token": {"content": "w2"}}));
    assert_eq!(model.run(&ask("w7", Options::default())).unwrap().0, "w1");
}

#[test]
fn a_stop_string_over_several_tokens_ends_the_answer() {
    let options = Options { stop: Some(vec!["2 w3".into()]), ..at_most(9) };
    let (text, end) = Model::new().run(&ask("w7", options)).unwrap();
    assert_eq!((text.as_str(), end.reason), ("w1 w", FinishReason::Stop));
    assert_eq!(end.stop.as_deref(), Some("2 w3"));
    let options = Options { stop: Some(vec!["w3 x".into()]), ..at_most(3) };
    let (text, end) = Model::new().run(&ask("w7", options)).unwrap();
    assert_eq!(
        (text.as_str(), end.reason),
        ("w1 w2 w3", FinishReason::Length(LengthLimit::MaxTokens))
    );
}

#[test]
fn tokens_are_a_prompt_as_they_are() {
    let model = Model::new();
    let record = Record::default().with("prompt_ids", json!([3, 1, 4])).with("max_tokens", 2);
    let preset = Preset { raw: true, ..Preset::default() };
    let request = Request::parse(&record, &preset).unwrap();
    assert_eq!(model.run(&request).unwrap().0, "w1 w2");
    assert_eq!(model.script.0.borrow().asked[0].0, [3, 1, 4]);
    for wrong in [json!(3), json!([-1]), json!(["a"]), json!([1u64 << 40])] {
        let error = Request::parse(&Record::default().with("prompt_ids", wrong), &preset);
        assert_eq!(error.unwrap_err().message, "`prompt_ids` is not a list of tokens");
    }
}

#[test]
fn an_interrupt_ends_the_answer_at_the_token() {
    let model = Model::new();
    let mut runner = model.runner().unwrap();
    let pressed = Cell::new(false);
    let interrupted = || pressed.get();
    let request = ask("w7", at_most(9));
    let mut events = runner.generate(&request, &interrupted).unwrap();
    assert_eq!(events.next().unwrap().unwrap(), Event::Text("w1".into()));
    pressed.set(true);
    let Event::End(end) = events.next().unwrap().unwrap() else { panic!("no end") };
    assert_eq!((end.reason.name(), end.completion_tokens), ("interrupted", 1));
    assert!(events.next().is_none());
    drop(events);
    let mut events = runner.generate(&request, &interrupted).unwrap();
    let Event::End(end) = events.next().unwrap().unwrap() else { panic!("no end") };
    assert_eq!((end.reason.name(), end.completion_tokens), ("interrupted", 0));
}

#[test]
fn answers_are_made_side_by_side_and_one_that_fails_disturbs_no_other() {
    let model = Model::new();
    model.script.0.borrow_mut().fails_at = Some((2, 2));
    let mut runner = model.runner().unwrap();
    let mut told: BTreeMap<u64, String> = BTreeMap::new();
    let join =
        |runner: &mut Runner<Script>, count| runner.join(&ask("w7", at_most(count))).unwrap();
    let mut numbers = vec![join(&mut runner, 4), join(&mut runner, 4)];
    for step in 0..6 {
        if step == 1 {
            numbers.push(join(&mut runner, 2));
        }
        for (number, event) in runner.step() {
            let told = told.entry(number).or_default();
            match event {
                Ok(Event::Text(text)) => *told += &text,
                Ok(Event::End(end)) => *told += &format!(", {}", end.completion_tokens),
                Ok(other) => panic!("{other:?} was not asked"),
                Err(e) => *told += &format!(", {}", e.message),
            }
        }
    }
    let told: Vec<&str> = numbers.iter().map(|number| told[number].as_str()).collect();
    assert_eq!(told, ["w1 w2 w3 w4, 4", "w1, the script says so", "w1 w2, 2"]);
    assert!(model.script.0.borrow().texts.is_empty());
}

#[test]
fn a_stop_token_ends_the_answer_and_is_not_shown() {
    let options = Options { stop_ids: Some(vec![9, 3]), ..at_most(9) };
    let (text, end) = Model::new().run(&ask("w7", options)).unwrap();
    assert_eq!(
        (text.as_str(), end.reason, end.completion_tokens),
        ("w1 w2", FinishReason::Stop, 3)
    );
}

#[test]
fn fields_of_a_wrong_kind_are_named_with_their_file() {
    let model = Model::new();
    for (file, field, value) in [
        ("generation_config.json", "eos_token_id", json!("</s>")),
        ("generation_config.json", "top_k", json!(1.5)),
        ("generation_config.json", "temperature", json!("hot")),
        ("generation_config.json", "top_p", json!(7)),
        ("config.json", "eos_token_id", json!([2, [3]])),
    ] {
        model.file("generation_config.json", json!({}));
        model.file(file, json!({"model_type": "llama", field: value}));
        let e = model.runner().err().unwrap();
        assert_eq!(e.kind, Kind::InvalidModel);
        assert!(e.subject.ends_with(file) && e.message.contains(field), "{e}");
    }
}

#[test]
fn what_the_makers_recommend_is_the_default() {
    let model = Model::new();
    let plain = model.sampling();
    assert_eq!((plain.temperature, plain.top_p, plain.repetition_penalty), (0.7, 0.9, 1.0));
    model.file("generation_config.json", json!({"temperature": 0.25, "top_k": 20, "top_p": 0.5}));
    let theirs = model.sampling();
    assert_eq!((theirs.temperature, theirs.top_k, theirs.top_p), (0.25, 20, 0.5));
    model.file("generation_config.json", json!({"temperature": null, "top_k": -1}));
    assert_eq!((model.sampling().temperature, model.sampling().top_k), (0.7, 0));
    model.file("generation_config.json", json!({"do_sample": false, "temperature": 0.25}));
    assert_eq!(model.sampling().temperature, 0.0);
}

#[test]
fn a_conversation_goes_through_the_template_and_begins_but_once() {
    let model = Model::new();
    let chat = Request { options: at_most(1), ..Request::new(Prompt::chat(Some("w4"), "w5")) };
    let e = model.run(&chat).unwrap_err();
    assert_eq!(e.kind, Kind::CapabilityNotSupported);
    let user = Request { prompt: Prompt::chat(None, "w5 w6"), ..chat.clone() };
    model.run(&user).unwrap();
    assert_eq!(model.script.0.borrow().asked.last().unwrap().0, [5, 6]);
    let template = "{{ bos_token }} {% for m in messages %}{{ m.content }} {% endfor %}w9";
    let list =
        json!([{"name": "tools", "template": "-"}, {"name": "default", "template": template}]);
    model.file("tokenizer_config.json", json!({"bos_token": "w8", "chat_template": list}));
    model.run(&chat).unwrap();
    assert_eq!(model.script.0.borrow().asked.last().unwrap().0, [8, 4, 5, 9]);
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    let model = Model::new();
    model.file("tokenizer.json", json!([1]));
    let e = model.runner().err().unwrap();
    assert_eq!(e.kind, Kind::InvalidModel);
    assert!(
        e.subject.ends_with("tokenizer.json") && e.message.starts_with("not a tokenizer"),
        "{e}"
    );
    std::fs::remove_file(model.dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(model.runner().err().unwrap().message, "no tokenizer.json");
}
