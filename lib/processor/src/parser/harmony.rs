//! OpenAI's harmony: every part of an answer says in a header what it is.
//!
//! `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...`; a
//! call has its recipient in the header, ` to=functions.name`.

use super::literal;
use super::marked::{Piece, open_end};
use super::output::Given;
use super::tool_calls::Call;

/// Ends of a part.
const ENDS: [&str; 5] = ["<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"];

/// An answer in this form.
#[derive(Debug)]
pub struct Harmony {
    part: Part,
    held: String,
    given: Given,
    /// Whether there was a header.
    headed: bool,
    /// Whether there is anything to call.
    calls: bool,
}

#[derive(Debug, PartialEq)]
enum Part {
    Header,
    Reasoning,
    Text,
    Call(String),
}

impl Harmony {
    /// For the answer to `prompt`, which ends within a header or behind it. Without `calls`, what
    /// would be one is text.
    pub fn new(prompt: &str, calls: bool) -> Harmony {
        let header = prompt.rfind("<|start|>").map_or("", |at| &prompt[at..]);
        let mut harmony = Harmony {
            part: Part::Header,
            held: String::new(),
            given: Given::default(),
            headed: false,
            calls,
        };
        if !header.contains("<|end|>") {
            harmony.held.push_str(header);
            while harmony.advance() {}
            // What the prompt says itself is not given out again.
            harmony.given.take();
        }
        harmony
    }

    /// True in the parts before the answer.
    pub fn reasons(&self) -> bool {
        self.part != Part::Text
    }

    /// See [`super::marked::Reader::push`].
    pub fn push(&mut self, piece: &str) -> Vec<Piece> {
        self.held.push_str(piece);
        while self.advance() {}
        self.given.take()
    }

    /// See [`super::marked::Reader::finish`].
    pub fn finish(&mut self) -> Vec<Piece> {
        while self.advance() {}
        let rest = std::mem::take(&mut self.held);
        match &self.part {
            // A model that does not keep to the form.
            Part::Header if !self.headed => {
                let text = rest.strip_prefix("<|start|>assistant").unwrap_or(&rest);
                self.given.piece(false, text);
            }
            Part::Header => {}
            Part::Reasoning => self.given.piece(true, rest.trim_end()),
            Part::Text => self.given.piece(false, &rest),
            Part::Call(name) => self.given_call(&name.clone(), &rest),
        }
        self.part = Part::Header;
        self.given.take()
    }

    /// Goes on to the next part, if what is held has its start.
    fn advance(&mut self) -> bool {
        if self.part == Part::Header {
            let Some((header, rest)) = self.held.split_once("<|message|>") else { return false };
            self.part = part(header);
            self.held = rest.to_owned();
            self.headed = true;
            self.given.part();
            return true;
        }
        let end = ENDS.iter().filter_map(|end| Some((self.held.find(end)?, end.len()))).min();
        let body = match end {
            Some((at, _)) => at,
            None if matches!(self.part, Part::Call(_)) => return false,
            None => self.held.len() - open_end(&self.held, ENDS),
        };
        let rest = self.held.split_off(body);
        let body = std::mem::replace(&mut self.held, rest);
        match &self.part {
            Part::Call(name) => self.given_call(&name.clone(), &body),
            part => self.given.piece(*part == Part::Reasoning, &body),
        }
        if let Some((_, length)) = end {
            // A channel is a part of the next header, the other ends are not.
            let header = self.held.starts_with("<|channel|>");
            self.held.drain(..if header { 0 } else { length });
            self.part = Part::Header;
        }
        end.is_some()
    }

    fn given_call(&mut self, name: &str, body: &str) {
        match literal::object(body.trim()).filter(|_| self.calls) {
            Some(arguments) => {
                self.given.call(Call { id: String::new(), name: name.to_owned(), arguments });
            }
            None => self.given.piece(false, body),
        }
    }
}

/// What a header announces.
fn part(header: &str) -> Part {
    let recipient = header.split("to=").nth(1).map(word);
    if let Some(name) = recipient.filter(|name| !name.is_empty() && *name != "assistant") {
        return Part::Call(name.strip_prefix("functions.").unwrap_or(name).to_owned());
    }
    match header.rsplit("<|channel|>").next().map(word) {
        Some("analysis") => Part::Reasoning,
        _ => Part::Text,
    }
}

/// `text` up to a space or a mark.
fn word(text: &str) -> &str {
    text.split([' ', '<']).next().unwrap_or_default()
}
