//! The envelope of OpenAI's chat completions and completions: id, object, model and usage around
//! their choices.

use std::collections::BTreeMap;

use axum::response::sse;
use mlxk_processor::event::End;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::format::{Output, data, unique_id, unix_time};

/// The ends of completions, by index.
pub type Ends = BTreeMap<usize, End>;

/// The fields that all documents of one response share.
pub struct Envelope {
    id: String,
    /// The `object` of a document, and of a chunk of a stream.
    objects: [&'static str; 2],
    created: u64,
    model: String,
    /// True if a stream ends with a chunk that has the usage.
    include_usage: bool,
    /// Number of completions of each prompt.
    n: usize,
}

impl Envelope {
    /// The envelope of a response by `model` with `n` completions of each prompt, whose new id
    /// starts with `prefix`.
    pub fn new(
        prefix: &str,
        objects: [&'static str; 2],
        model: &str,
        n: usize,
        include_usage: bool,
    ) -> Envelope {
        let (id, model) = (unique_id(prefix), model.to_owned());
        Envelope { id, objects, created: unix_time(), model, include_usage, n }
    }

    /// Number of completions of each prompt.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The document of a response whose completions have these outputs; `choice` makes each into an
    /// element of `choices`.
    pub fn document(&self, outputs: &[Output], choice: impl Fn(usize, &Output) -> Value) -> Value {
        let choices = outputs.iter().enumerate().map(|(index, output)| choice(index, output));
        let mut document = self.wrap(self.objects[0], choices.collect());
        let ends = outputs.iter().map(|output| output.end.clone()).enumerate();
        let ends = ends.filter_map(|(index, end)| Some((index, end?))).collect();
        document["usage"] = usage(&ends, self.n);
        document
    }

    /// A chunk of a stream, with one choice.
    pub fn chunk(&self, choice: Value) -> sse::Event {
        let mut chunk = self.wrap(self.objects[1], vec![choice]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }

    /// The last events of a stream.
    pub fn finish(&self, ends: &Ends) -> Vec<sse::Event> {
        let mut events = Vec::new();
        if self.include_usage {
            let mut chunk = self.wrap(self.objects[1], Vec::new());
            chunk["usage"] = usage(ends, self.n);
            events.push(data(&chunk));
        }
        events.push(sse::Event::default().data("[DONE]"));
        events
    }

    /// The last events of a stream that fails, of the request `id`.
    pub fn fail(&self, error: &ApiError, id: &str) -> Vec<sse::Event> {
        let mut chunk = self.wrap(self.objects[1], Vec::new());
        chunk["error"] = error.openai(id)["error"].take();
        vec![data(&chunk)]
    }

    fn wrap(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}

/// The usage of completions, `n` of each prompt, whose prompt counts once.
fn usage(ends: &Ends, n: usize) -> Value {
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
