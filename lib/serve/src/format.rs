//! How an API words answers: whole ones as a document, and those that come piece by piece as events.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::sse;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::engine::{Call, End, Event, Likelihood, Reason};
use crate::error::Refusal;

/// The words of an API.
pub trait Wording: Send {
    /// All answers, complete.
    fn whole(&mut self, answers: Vec<Answer>) -> Value;

    /// What is told before the first piece; one of `prompt_tokens` for each answer.
    fn begin(&mut self, prompt_tokens: &[u64]) -> Vec<sse::Event>;

    /// What is told of a piece of the answer `number`.
    fn piece(&mut self, number: usize, event: Event) -> Vec<sse::Event>;

    /// What is told when all answers are complete.
    fn end(&mut self) -> Vec<sse::Event>;

    /// What is told when an answer fails midway.
    fn fail(&mut self, refusal: &Refusal, id: &str) -> Vec<sse::Event>;
}

/// A token with the likeliest ones in its place.
pub type Likely = (Likelihood, Vec<Likelihood>);

/// All of an answer.
#[derive(Default)]
pub struct Answer {
    /// What the model thought before it.
    pub reasoning: String,
    /// What it says.
    pub text: String,
    /// What it wants to be called.
    pub calls: Vec<Call>,
    /// How likely its tokens were, if that was asked.
    pub logprobs: Vec<Likely>,
    /// How it ended.
    pub end: Option<End>,
}

impl Answer {
    /// Takes a piece.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Begun { .. } => {}
            Event::Logprobs(own, top) => self.logprobs.push((own, top)),
            Event::Reasoning(text) => self.reasoning += &text,
            Event::Text(text) => self.text += &text,
            Event::Call(call) => self.calls.push(call),
            Event::End(end) => self.end = Some(end),
        }
    }
}

/// An event without a name.
pub fn data(value: &Value) -> sse::Event {
    sse::Event::default().data(value.to_string())
}

/// An event with the name that its `type` is.
pub fn named(value: &Value) -> sse::Event {
    let name = value["type"].as_str().unwrap_or_default();
    sse::Event::default().event(name).data(value.to_string())
}

/// An id that no other answer has.
pub fn fresh(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::new_v4().simple())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    // A clock before 1970 is no reason to fail.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// The ends of `answers`.
pub fn ends(answers: &[Answer]) -> Ends {
    let ended = answers.iter().map(|answer| answer.end.clone()).enumerate();
    ended.filter_map(|(number, end)| Some((number, end?))).collect()
}

/// OpenAI's word for why an answer ended.
pub fn finish_reason(end: &End) -> &'static str {
    match end.reason {
        Reason::Stop => "stop",
        Reason::Calls => "tool_calls",
        Reason::Length => "length",
    }
}

/// The ends of answers, by their numbers.
pub type Ends = BTreeMap<usize, End>;

/// OpenAI's count of the tokens of `n` answers to each prompt, which counts once.
pub fn usage(ends: &Ends, n: usize) -> Value {
    let sum = |of: fn(&End) -> u64| ends.values().map(of).sum::<u64>();
    let once = |of: fn(&End) -> u64| ends.values().step_by(n).map(of).sum::<u64>();
    let (prompt, cached) = (once(|end| end.prompt_tokens), once(|end| end.cached_tokens));
    let completion = sum(|end| end.completion_tokens);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": sum(|end| end.reasoning_tokens)},
    })
}

/// OpenAI's form of the likelihood of a token of a chat.
pub fn likely((own, top): &Likely) -> Value {
    let one = |token: &Likelihood| json!({"token": token.text, "logprob": token.logprob, "bytes": token.bytes});
    let mut value = one(own);
    value["top_logprobs"] = top.iter().map(one).collect();
    value
}
