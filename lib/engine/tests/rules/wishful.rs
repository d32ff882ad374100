//! A model that says what it likes best of what it may.

use mlxk_core::store::{Found, Origin};
use mlxk_core::{Inspected, Record, Result, inspect};
use mlxk_engine::{Runner, Source, Step};
use mlxk_processor::request::Preset;
use mlxk_processor::{Constraint, Event, Request, Sampling, Token};
use serde_json::{Value, json};

/// The tokens; the last is the end.
pub const TOKENS: [&str; 17] = [
    "}",
    "{",
    "\"",
    "a",
    "b",
    ":",
    ",",
    "1",
    "true",
    "null",
    "[",
    "]",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "</s>",
];

/// Those of a model whose answers are in OpenAI's harmony.
pub const HARMONY: [&str; 17] = [
    "}",
    "{",
    "\"",
    "x",
    "b",
    ":",
    "assistant",
    "1",
    "Ġto=functions.a",
    "commentary",
    "final",
    "analysis",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|call|>",
];

/// Those of a model whose marks are spelled, and which may write its calls without.
pub const SPELLED: [&str; 17] = [
    "}",
    "{",
    "\"",
    "arguments",
    "b",
    ":",
    ",",
    "1",
    "<",
    "tool_",
    "call>",
    "</",
    "name",
    "parameters",
    "a",
    "[",
    "</s>",
];

/// A call in them.
pub const SPELLED_CALL: [&str; 28] = [
    "<",
    "tool_",
    "call>",
    "{",
    "\"",
    "name",
    "\"",
    ":",
    "\"",
    "a",
    "\"",
    ",",
    "\"",
    "arguments",
    "\"",
    ":",
    "{",
    "\"",
    "b",
    "\"",
    ":",
    "1",
    "}",
    "}",
    "</",
    "tool_",
    "call>",
    "</s>",
];

/// The end of a template that has no place for tools.
pub const UNTOLD: &str = "untold";

/// A model that wants to say `wishes`, then the earliest of its tokens that it may.
struct Wishful {
    wishes: Vec<u32>,
    said: usize,
    barred: Vec<u32>,
    constraint: Option<Box<dyn Constraint>>,
}

impl Source for Wishful {
    fn join(
        &mut self,
        _: &[u32],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<u64> {
        self.barred = sampling.logit_bias.iter().map(|(id, _)| *id).collect();
        self.constraint = constraint;
        self.said = 0;
        Ok(1)
    }

    fn step(&mut self) -> Result<Step> {
        let allowed = self.constraint.as_mut().map(|rules| rules.allowed()).transpose()?;
        let may = |id: u32| {
            let word = |words: &Vec<u32>| words[id as usize / 32] >> (id % 32) & 1 == 1;
            allowed.as_ref().is_none_or(word) && !self.barred.contains(&id)
        };
        let wish = self.wishes.get(self.said).copied().filter(|&id| may(id));
        let all = 0..TOKENS.len() as u32;
        let end = [TOKENS.len() as u32 - 1];
        let id = wish.into_iter().chain(all).chain(end).find(|&id| may(id)).unwrap();
        self.said += 1;
        self.constraint.as_mut().map(|rules| rules.push(id)).transpose()?;
        Ok(vec![(1, Ok(Token { id, logprob: Some(0.0), top: Vec::new() }))])
    }

    fn reused(&self, _: u64) -> u64 {
        0
    }

    fn leave(&mut self, _: u64) {}
}

/// What came of an answer.
#[derive(Debug, Default, PartialEq)]
pub struct Told {
    pub reasoning: String,
    pub text: String,
    pub calls: Vec<Value>,
    /// The tokens of the text, as likelihoods are told of them.
    pub likely: String,
    pub reason: &'static str,
}

/// Asks a model whose chat template ends with `end`, and which wants to say `wishes`.
pub fn ask(end: &str, wishes: &[&str], request: Value) -> Result<Told> {
    ask_with(&TOKENS, end, wishes, request)
}

/// Asks one that has these tokens.
pub fn ask_with(tokens: &[&str; 17], end: &str, wishes: &[&str], request: Value) -> Result<Told> {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: Value| {
        std::fs::write(dir.path().join(name), content.to_string()).unwrap();
    };
    let vocabulary = tokens.iter().zip(0..).map(|(&token, id)| (token.to_owned(), json!(id)));
    let special = |token: &str| {
        Some(&token) == tokens.last() || token.starts_with("<|") || token == "[TOOL_CALLS]"
    };
    let added = tokens.iter().zip(0..).skip(12).map(|(&token, id)| {
        json!({"id": id, "content": token, "special": special(token), "lstrip": false,
            "rstrip": false, "normalized": false, "single_word": false})
    });
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    file(
        "tokenizer.json",
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
            "decoder": decoder, "added_tokens": added.collect::<Vec<_>>(),
            "model": {"type": "WordLevel", "vocab": vocabulary.collect::<serde_json::Map<_, _>>(),
                "unk_token": tokens[3]},
        }),
    );
    file("config.json", json!({"model_type": "llama", "max_position_embeddings": 100}));
    let known = if end == UNTOLD { "" } else { "tools" };
    let template =
        format!("{{# <think></think> <tool_call> {known} #}}{{{{ messages[0].content }}}} {end}");
    file("tokenizer_config.json", json!({"eos_token": tokens[16], "chat_template": template}));
    let path = dir.path().to_owned();
    let name = path.display().to_string();
    let found = Found { name, path, revision: None, origin: Origin::Workspace };
    let Inspected { facts, plan, .. } = inspect(&found)?;
    let id = |wish: &&str| tokens.iter().position(|token| token == wish).unwrap() as u32;
    let source = Wishful {
        wishes: wishes.iter().map(id).collect(),
        said: 0,
        barred: Vec::new(),
        constraint: None,
    };
    let mut runner = Runner::new(source, &facts, &plan)?;
    let Value::Object(mut fields) = request else { panic!("no request") };
    fields.entry("prompt").or_insert(json!("a"));
    let lenient = fields.contains_key("lenient");
    let request = Request::parse(&Record::from(fields), &Preset::default())?;
    let request = Request { lenient, ..request };
    let mut told = Told::default();
    for event in runner.generate(&request, &|| false)? {
        match event? {
            Event::Reasoning(text) => told.reasoning += &text,
            Event::Text(text) => told.text += &text,
            Event::ToolCall(call) => told.calls.push(call.record()),
            Event::Logprobs(token) if token.in_text => told.likely += &token.token.text,
            Event::Logprobs(_) | Event::Started { .. } => {}
            Event::End(end) => told.reason = end.reason.name(),
        }
    }
    Ok(told)
}

/// A function `a`.
pub fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "a"}}])
}

/// The name and the arguments of each call.
pub fn called(told: &Told) -> Vec<(Value, Value)> {
    let call =
        |call: &Value| (call["function"]["name"].clone(), call["function"]["arguments"].clone());
    told.calls.iter().map(call).collect()
}

/// What a model says that thinks, then says `text`.
pub fn thinking<'a>(text: &[&'a str]) -> Vec<&'a str> {
    let thought = ["<|channel|>", "analysis", "<|message|>", "b", "<|call|>", "<|end|>"];
    [&thought[..], &["<|start|>", "assistant", "<|channel|>"], text].concat()
}
