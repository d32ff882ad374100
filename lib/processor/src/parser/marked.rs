//! Reasoning, text and calls told apart while an answer arrives.
//!
//! What comes out does not depend on how the answer is cut into pieces. Reasoning is looked for
//! where a part may begin: at the start, and after reasoning or a call. White space around marks
//! belongs to none of the parts.

use serde_json::Value;

use super::harmony::Harmony;
use super::markers::{Marks, Pair};
use super::output::Given;
use super::tool_calls::{Call, calls};
use crate::tools::name;

/// A piece of an answer.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// What the model thinks before it answers.
    Reasoning(String),
    /// The answer.
    Text(String),
    /// A call.
    Call(Call),
}

/// Where an answer is, for those who say what may come next.
#[derive(Debug, PartialEq)]
pub enum Place {
    /// Within reasoning, or what announces a part.
    Reasoning,
    /// Within a call, or behind one.
    Call,
    /// Where a mark may open another part: at the beginning of the text, or within the mark.
    Opening {
        /// What is still to come of each mark of reasoning.
        reasoning: Vec<&'static str>,
        /// The same of calls.
        calls: Vec<&'static str>,
        /// Whether a part of the mark is there.
        within: bool,
    },
    /// Within the text.
    Text,
}

/// Reads one answer.
#[derive(Debug)]
pub enum Reader {
    /// There is nothing but text.
    Plain,
    /// Parts are between marks.
    Marked(Marked),
    /// Each part tells what it is.
    Harmony(Harmony),
}

impl Reader {
    /// For the answer to `prompt`, whose end may have opened a part already. Where there are no
    /// `tools`, what would be a call of one is text.
    pub fn new(marks: &Marks, prompt: &str, tools: &[Value]) -> Reader {
        let marks = if tools.is_empty() { marks.of_reasoning() } else { marks.clone() };
        match marks {
            Marks { harmony: true, .. } => Reader::Harmony(Harmony::new(prompt, !tools.is_empty())),
            marks if marks == Marks::default() => Reader::Plain,
            marks => Reader::Marked(Marked::new(marks, prompt, tools)),
        }
    }

    /// True while the model reasons, as far as is known yet.
    pub fn reasons(&self) -> bool {
        match self {
            Reader::Plain => false,
            Reader::Marked(marked) => marked.reasons(),
            Reader::Harmony(harmony) => harmony.reasons(),
        }
    }

    /// Whether what came last is of the text, as far as is known yet.
    pub fn speaks(&self) -> bool {
        match self {
            Reader::Plain => true,
            Reader::Marked(marked) => marked.speaks(),
            Reader::Harmony(harmony) => !harmony.reasons(),
        }
    }

    /// Where the answer is; rules for harmony know that themselves.
    pub fn place(&self) -> Place {
        match self {
            Reader::Plain | Reader::Harmony(_) => Place::Text,
            Reader::Marked(marked) => marked.place(),
        }
    }

    /// What there is of a call that has begun.
    pub fn begun(&self) -> &str {
        match self {
            Reader::Marked(Marked { part: Part::Calls { .. }, held, .. }) => held,
            _ => "",
        }
    }

    /// What the next piece settles.
    pub fn push(&mut self, piece: &str) -> Vec<Piece> {
        match self {
            Reader::Plain if piece.is_empty() => Vec::new(),
            Reader::Plain => vec![Piece::Text(piece.to_owned())],
            Reader::Marked(marked) => marked.push(piece),
            Reader::Harmony(harmony) => harmony.push(piece),
        }
    }

    /// The rest, when no more comes.
    pub fn finish(&mut self) -> Vec<Piece> {
        match self {
            Reader::Plain => Vec::new(),
            Reader::Marked(marked) => marked.finish(),
            Reader::Harmony(harmony) => harmony.finish(),
        }
    }
}

/// An answer whose parts are between marks.
#[derive(Debug)]
pub struct Marked {
    marks: Marks,
    tools: Vec<Value>,
    part: Part,
    /// What is not settled yet.
    held: String,
    /// Whether there was a mark before this part, to which white space belongs.
    marked: bool,
    /// Whether a mark of calls was there.
    called: bool,
    given: Given,
}

/// A part of an answer.
#[derive(Debug)]
enum Part {
    Text,
    Reasoning {
        close: &'static str,
    },
    /// With what it opened with, should it turn out to be none.
    Calls {
        open: String,
        close: &'static str,
        inside: bool,
    },
}

/// A mark that opens a part.
enum Opening {
    Reasoning(Pair),
    /// And whether the mark is a part of the call.
    Calls(Pair, bool),
}

impl Marked {
    fn new(marks: Marks, prompt: &str, tools: &[Value]) -> Marked {
        let prompt = prompt.trim_end();
        let opened = marks.reasoning.iter().find(|(open, _)| prompt.ends_with(open));
        Marked {
            part: opened.map_or(Part::Text, |(_, close)| Part::Reasoning { close }),
            marked: opened.is_some(),
            called: false,
            marks,
            tools: tools.to_vec(),
            held: String::new(),
            given: Given::default(),
        }
    }

    /// True within reasoning, and within a mark that may open it.
    fn reasons(&self) -> bool {
        let held = self.held.trim_start();
        let begins = |(open, _): &Pair| open.starts_with(held);
        match self.part {
            Part::Reasoning { .. } => true,
            Part::Text if self.given.begun() || held.is_empty() => false,
            Part::Text => self.marks.reasoning.iter().any(begins),
            Part::Calls { .. } => false,
        }
    }

    /// White space behind a mark is of no part.
    fn speaks(&self) -> bool {
        let blank = || self.marked && !self.given.begun() && self.held.trim().is_empty();
        matches!(self.part, Part::Text) && !blank()
    }

    fn place(&self) -> Place {
        let held = self.held.trim_start();
        match self.part {
            Part::Reasoning { .. } => Place::Reasoning,
            _ if self.called => Place::Call,
            Part::Text if !self.given.begun() => Place::Opening {
                reasoning: rests(&self.marks.reasoning, held).collect(),
                calls: rests(&self.marks.calls, held)
                    .chain(rests(&self.marks.open_calls, held))
                    .collect(),
                within: !held.is_empty(),
            },
            Part::Text | Part::Calls { .. } => Place::Text,
        }
    }

    fn push(&mut self, piece: &str) -> Vec<Piece> {
        self.held.push_str(piece);
        while self.advance() {}
        self.given.take()
    }

    fn finish(&mut self) -> Vec<Piece> {
        while self.advance() {}
        let rest = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.part, Part::Text) {
            Part::Calls { open, inside, .. } => self.calls(&open, &rest, "", inside),
            Part::Reasoning { .. } => self.give(true, rest.trim_end()),
            Part::Text => self.give(false, &rest),
        }
        self.given.take()
    }

    /// Goes on to the next mark, if what is held has one.
    fn advance(&mut self) -> bool {
        match &self.part {
            Part::Text => self.in_text(),
            Part::Reasoning { close } => {
                let close = *close;
                match self.held.find(close) {
                    Some(at) => {
                        let rest = self.held.split_off(at + close.len());
                        self.held.truncate(at);
                        self.settle(true, 0);
                        self.held = rest;
                        self.next(Part::Text);
                        true
                    }
                    None => {
                        self.settle(true, open_end(&self.held, [close]));
                        false
                    }
                }
            }
            Part::Calls { close, .. } => {
                let close = *close;
                let end = match close {
                    "" => self.opening().map(|(at, ..)| at),
                    close => self.held.find(close),
                };
                let Some(at) = end else { return false };
                let rest = self.held.split_off(at + close.len());
                self.held.truncate(at);
                let block = std::mem::replace(&mut self.held, rest);
                if let Part::Calls { open, inside, .. } =
                    std::mem::replace(&mut self.part, Part::Text)
                {
                    self.calls(&open, &block, close, inside);
                }
                true
            }
        }
    }

    fn in_text(&mut self) -> bool {
        let first = self.held.trim_start();
        if self.marks.bare && !self.given.begun() && first.starts_with('{') {
            let rest = self.held.split_off(self.held.len() - first.len());
            let open = std::mem::replace(&mut self.held, rest);
            self.part = Part::Calls { open, close: "", inside: false };
            return true;
        }
        match self.opening() {
            Some((at, length, opening)) => {
                let rest = self.held.split_off(at + length);
                self.settle(false, length);
                let open = std::mem::replace(&mut self.held, rest);
                match opening {
                    Opening::Reasoning((_, close)) => self.next(Part::Reasoning { close }),
                    Opening::Calls((_, close), inside) => {
                        self.called = true;
                        self.part = Part::Calls { open, close, inside };
                    }
                }
                true
            }
            None => {
                let marks = self.openings();
                self.settle(false, open_end(&self.held, marks.iter().map(Opening::mark)));
                false
            }
        }
    }

    /// Begins a part behind a mark.
    fn next(&mut self, part: Part) {
        self.part = part;
        self.marked = true;
        self.given.part();
    }

    /// Gives out what is held but its last `open` bytes and the white space before these.
    fn settle(&mut self, reasoning: bool, open: usize) {
        let settled = self.held[..self.held.len() - open].trim_end().len();
        let rest = self.held.split_off(settled);
        let text = std::mem::replace(&mut self.held, rest);
        self.give(reasoning, &text);
    }

    /// Gives out text, but not the white space behind a mark.
    fn give(&mut self, reasoning: bool, text: &str) {
        let begins = self.marked && !self.given.begun();
        self.given.piece(reasoning, if begins { text.trim_start() } else { text });
    }

    /// The calls of a block, or else its text.
    fn calls(&mut self, open: &str, block: &str, close: &str, inside: bool) {
        let whole = format!("{open}{block}{close}");
        let is_tool = |call: &Call| self.tools.iter().any(|tool| name(tool) == Some(&call.name));
        // Without a mark there may be anything.
        let marked = !open.trim().is_empty();
        let read = calls(if inside { &whole } else { block }, &self.tools);
        match read.filter(|calls| marked || calls.iter().all(is_tool)) {
            Some(calls) => {
                calls.into_iter().for_each(|call| self.given.call(call));
                self.next(Part::Text);
            }
            None => self.give(false, &whole),
        }
    }

    /// The first mark in what is held that opens a part: where, how long, and which.
    fn opening(&self) -> Option<(usize, usize, Opening)> {
        let found = self.openings().into_iter().filter_map(|opening| {
            let at = self.held.find(opening.mark())?;
            // Reasoning begins nowhere but at the beginning of a part.
            let blank = || self.held[..at].trim().is_empty();
            let here = matches!(opening, Opening::Calls(..)) || blank();
            here.then(|| (at, opening.mark().len(), opening))
        });
        found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)))
    }

    /// The marks that may open a part here.
    fn openings(&self) -> Vec<Opening> {
        let fresh = !self.given.begun() && matches!(self.part, Part::Text);
        let reasoning = self.marks.reasoning.iter().filter(|_| fresh);
        let reasoning = reasoning.copied().map(Opening::Reasoning);
        reasoning.chain(self.call_openings()).collect()
    }

    fn call_openings(&self) -> impl Iterator<Item = Opening> {
        let calls = self.marks.calls.iter().map(|pair| Opening::Calls(*pair, false));
        calls.chain(self.marks.open_calls.iter().map(|pair| Opening::Calls(*pair, true)))
    }
}

impl Opening {
    fn mark(&self) -> &'static str {
        match self {
            Opening::Reasoning((open, _)) | Opening::Calls((open, _), _) => open,
        }
    }
}

/// What is still to come of each mark of `pairs` that `held` begins.
fn rests(pairs: &[Pair], held: &str) -> impl Iterator<Item = &'static str> {
    pairs.iter().filter_map(move |(open, _)| open.strip_prefix(held))
}

/// The bytes at the end of `text` with which one of `marks` may begin.
pub fn open_end<'m>(text: &str, marks: impl IntoIterator<Item = &'m str>) -> usize {
    let open = |mark: &str| {
        let starts = mark.char_indices().map(|(at, _)| at).rev();
        starts.filter(|&at| at > 0).find(|&at| text.ends_with(&mark[..at])).unwrap_or(0)
    };
    marks.into_iter().map(open).max().unwrap_or(0)
}
