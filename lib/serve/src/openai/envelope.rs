//! What all documents of one answer have in OpenAI's chats and completions.

use axum::response::sse;
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::format::{Ends, data, fresh, now, usage};

/// What all documents of an answer have.
pub struct Heading {
    id: String,
    /// What a whole answer is called, and a piece of a stream.
    objects: [&'static str; 2],
    created: u64,
    model: String,
    /// Whether a stream ends with a count of tokens.
    usage: bool,
}

impl Heading {
    /// For an answer of `model`, whose id begins with `prefix`.
    pub fn new(prefix: &str, objects: [&'static str; 2], model: &str, usage: bool) -> Heading {
        Heading { id: fresh(prefix), objects, created: now(), model: model.to_owned(), usage }
    }

    /// A whole answer, of `n` to each prompt.
    pub fn whole(&self, choices: Vec<Value>, ends: &Ends, n: usize) -> Value {
        let mut document = self.document(self.objects[0], choices);
        document["usage"] = usage(ends, n);
        document
    }

    /// A piece of a stream.
    pub fn chunk(&self, choice: Value) -> sse::Event {
        let mut chunk = self.document(self.objects[1], vec![choice]);
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        data(&chunk)
    }

    /// The end of a stream.
    pub fn end(&self, ends: &Ends, n: usize) -> Vec<sse::Event> {
        let mut last = Vec::new();
        if self.usage {
            let mut chunk = self.document(self.objects[1], Vec::new());
            chunk["usage"] = usage(ends, n);
            last.push(data(&chunk));
        }
        last.push(sse::Event::default().data("[DONE]"));
        last
    }

    /// The end of a stream that fails.
    pub fn fail(&self, refusal: &Refusal, id: &str) -> Vec<sse::Event> {
        let mut chunk = self.document(self.objects[1], Vec::new());
        chunk["error"] = refusal.openai(id)["error"].take();
        vec![data(&chunk)]
    }

    fn document(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }
}
