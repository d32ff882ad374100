//! Parser of completions whose reasoning and tool calls are between markers.
//!
//! Its deltas do not depend on how the text is cut into pieces. Reasoning is recognized where a
//! section may begin: at the start, and after reasoning or a tool call. White space around markers
//! belongs to no section.

use serde_json::Value;

use super::delta::{Delta, open_end};
use super::markers::{Markers, Pair};
use super::output::Output;
use super::tool_calls::{ToolCall, calls};
use crate::tools::name;

/// Position of a parser in a completion, which determines what a constraint allows next.
#[derive(Debug, PartialEq)]
pub enum Position {
    /// Position within reasoning, or within a header.
    Reasoning,
    /// Position within a tool call, or behind one.
    Call,
    /// Position at which a marker may open a section: the start of the text, or within the marker.
    Opening {
        /// Rest of each marker of reasoning.
        reasoning: Vec<&'static str>,
        /// Rest of each marker of tool calls.
        calls: Vec<&'static str>,
        /// True if a part of the marker is present.
        within: bool,
    },
    /// Position within the text.
    Text,
}

/// Parser of completions whose sections are between markers.
#[derive(Debug)]
pub struct MarkedParser {
    markers: Markers,
    tools: Vec<Value>,
    section: Section,
    /// Text that is not parsed yet.
    held: String,
    /// True if a marker precedes this section; white space after it is dropped.
    after_marker: bool,
    /// True if there was a marker of tool calls.
    called: bool,
    output: Output,
}

/// Section of a completion.
#[derive(Debug)]
enum Section {
    Text,
    Reasoning {
        /// Marker that closes the section.
        close: &'static str,
    },
    Calls {
        /// Text that opened the section, which is returned as text if the section has no call.
        open: String,
        /// Marker that closes the section.
        close: &'static str,
        /// True if the markers are a part of the call.
        inside: bool,
    },
}

/// Marker that opens a section.
enum Opening {
    Reasoning(Pair),
    /// Marker of tool calls, and true if it is a part of the call.
    Calls(Pair, bool),
}

impl MarkedParser {
    /// Parser of the completion of `prompt`, whose end may have opened reasoning already.
    pub fn new(markers: Markers, prompt: &str, tools: &[Value]) -> MarkedParser {
        let prompt = prompt.trim_end();
        let opened = markers.reasoning.iter().find(|(open, _)| prompt.ends_with(open));
        MarkedParser {
            section: opened.map_or(Section::Text, |(_, close)| Section::Reasoning { close }),
            after_marker: opened.is_some(),
            called: false,
            markers,
            tools: tools.to_vec(),
            held: String::new(),
            output: Output::default(),
        }
    }

    /// True within reasoning, and within a marker that may open it.
    pub fn is_reasoning(&self) -> bool {
        let held = self.held.trim_start();
        let begins = |(open, _): &Pair| open.starts_with(held);
        match self.section {
            Section::Reasoning { .. } => true,
            Section::Text if self.output.has_begun() || held.is_empty() => false,
            Section::Text => self.markers.reasoning.iter().any(begins),
            Section::Calls { .. } => false,
        }
    }

    /// True within the text; white space behind a marker belongs to no section.
    pub fn is_in_text(&self) -> bool {
        let blank = || self.after_marker && !self.output.has_begun() && self.held.trim().is_empty();
        matches!(self.section, Section::Text) && !blank()
    }

    /// Position in the completion.
    pub fn position(&self) -> Position {
        let held = self.held.trim_start();
        match self.section {
            Section::Reasoning { .. } => Position::Reasoning,
            _ if self.called => Position::Call,
            Section::Text if !self.output.has_begun() => Position::Opening {
                reasoning: rests(&self.markers.reasoning, held).collect(),
                calls: rests(&self.markers.calls, held)
                    .chain(rests(&self.markers.open_calls, held))
                    .collect(),
                within: !held.is_empty(),
            },
            Section::Text | Section::Calls { .. } => Position::Text,
        }
    }

    /// Text of the tool call that has begun.
    pub fn open_call(&self) -> &str {
        match self.section {
            Section::Calls { .. } => &self.held,
            Section::Text | Section::Reasoning { .. } => "",
        }
    }

    /// Advances by a piece of text, and returns the deltas that are certain.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        self.held.push_str(text);
        while self.advance() {}
        self.output.take()
    }

    /// Ends the completion, and returns the rest.
    pub fn finish(&mut self) -> Vec<Delta> {
        while self.advance() {}
        let rest = std::mem::take(&mut self.held);
        match std::mem::replace(&mut self.section, Section::Text) {
            Section::Calls { open, inside, .. } => self.push_calls(&open, &rest, "", inside),
            Section::Reasoning { .. } => self.push_output(true, rest.trim_end()),
            Section::Text => self.push_output(false, &rest),
        }
        self.output.take()
    }

    /// Advances past the next marker. Returns false if no marker is complete.
    fn advance(&mut self) -> bool {
        match self.section {
            Section::Text => self.advance_text(),
            Section::Reasoning { close } => self.advance_reasoning(close),
            Section::Calls { close, .. } => self.advance_calls(close),
        }
    }

    fn advance_reasoning(&mut self, close: &str) -> bool {
        match self.held.find(close) {
            Some(at) => {
                let rest = self.held.split_off(at + close.len());
                self.held.truncate(at);
                self.release(true, 0);
                self.held = rest;
                self.start_section(Section::Text);
                true
            }
            None => {
                self.release(true, open_end(&self.held, [close]));
                false
            }
        }
    }

    fn advance_calls(&mut self, close: &str) -> bool {
        let end = match close {
            "" => self.opening().map(|(at, ..)| at),
            close => self.held.find(close),
        };
        let Some(at) = end else { return false };
        let rest = self.held.split_off(at + close.len());
        self.held.truncate(at);
        let block = std::mem::replace(&mut self.held, rest);
        if let Section::Calls { open, inside, .. } =
            std::mem::replace(&mut self.section, Section::Text)
        {
            self.push_calls(&open, &block, close, inside);
        }
        true
    }

    fn advance_text(&mut self) -> bool {
        let first = self.held.trim_start();
        if self.markers.bare && !self.output.has_begun() && first.starts_with('{') {
            let rest = self.held.split_off(self.held.len() - first.len());
            let open = std::mem::replace(&mut self.held, rest);
            self.section = Section::Calls { open, close: "", inside: false };
            return true;
        }
        match self.opening() {
            Some((at, length, opening)) => {
                let rest = self.held.split_off(at + length);
                self.release(false, length);
                let open = std::mem::replace(&mut self.held, rest);
                match opening {
                    Opening::Reasoning((_, close)) => {
                        self.start_section(Section::Reasoning { close });
                    }
                    Opening::Calls((_, close), inside) => {
                        self.called = true;
                        self.section = Section::Calls { open, close, inside };
                    }
                }
                true
            }
            None => {
                let openings = self.openings();
                self.release(false, open_end(&self.held, openings.iter().map(Opening::marker)));
                false
            }
        }
    }

    /// Starts a section behind a marker.
    fn start_section(&mut self, section: Section) {
        self.section = section;
        self.after_marker = true;
        self.output.start_section();
    }

    /// Releases the held text except its last `open` bytes and the white space before them.
    fn release(&mut self, reasoning: bool, open: usize) {
        let certain = self.held[..self.held.len() - open].trim_end().len();
        let rest = self.held.split_off(certain);
        let text = std::mem::replace(&mut self.held, rest);
        self.push_output(reasoning, &text);
    }

    /// Adds text to the output, without white space behind a marker.
    fn push_output(&mut self, reasoning: bool, text: &str) {
        let begins = self.after_marker && !self.output.has_begun();
        self.output.push(reasoning, if begins { text.trim_start() } else { text });
    }

    /// Adds the tool calls of a block to the output, or its text if there are none.
    fn push_calls(&mut self, open: &str, block: &str, close: &str, inside: bool) {
        let whole = format!("{open}{block}{close}");
        let is_tool =
            |call: &ToolCall| self.tools.iter().any(|tool| name(tool) == Some(&call.name));
        // Without a marker, only calls of known tools count.
        let marked = !open.trim().is_empty();
        let parsed = calls(if inside { &whole } else { block }, &self.tools);
        match parsed.filter(|calls| marked || calls.iter().all(is_tool)) {
            Some(calls) => {
                calls.into_iter().for_each(|call| self.output.push_call(call));
                self.start_section(Section::Text);
            }
            None => self.push_output(false, &whole),
        }
    }

    /// First marker in the held text that opens a section: its place, its length, and the opening.
    fn opening(&self) -> Option<(usize, usize, Opening)> {
        let found = self.openings().into_iter().filter_map(|opening| {
            let at = self.held.find(opening.marker())?;
            // Reasoning starts only at the start of a section.
            let blank = || self.held[..at].trim().is_empty();
            let here = matches!(opening, Opening::Calls(..)) || blank();
            here.then(|| (at, opening.marker().len(), opening))
        });
        found.min_by_key(|(at, length, _)| (*at, std::cmp::Reverse(*length)))
    }

    /// Markers that may open a section here.
    fn openings(&self) -> Vec<Opening> {
        let fresh = !self.output.has_begun() && matches!(self.section, Section::Text);
        let reasoning = self.markers.reasoning.iter().filter(|_| fresh);
        let reasoning = reasoning.copied().map(Opening::Reasoning);
        reasoning.chain(self.call_openings()).collect()
    }

    fn call_openings(&self) -> impl Iterator<Item = Opening> {
        let calls = self.markers.calls.iter().map(|pair| Opening::Calls(*pair, false));
        calls.chain(self.markers.open_calls.iter().map(|pair| Opening::Calls(*pair, true)))
    }
}

impl Opening {
    fn marker(&self) -> &'static str {
        match self {
            Opening::Reasoning((open, _)) | Opening::Calls((open, _), _) => open,
        }
    }
}

/// Rest of each opening marker of `pairs` that starts with `held`.
fn rests(pairs: &[Pair], held: &str) -> impl Iterator<Item = &'static str> {
    pairs.iter().filter_map(move |(open, _)| open.strip_prefix(held))
}
