//! Parser of a completion's text, in the format of the model: plain, between markers, or harmony.

use serde_json::Value;

use super::delta::Delta;
use super::harmony::HarmonyParser;
use super::marked::{MarkedParser, Position};
use super::markers::Markers;

/// Parser that tells the reasoning, the text and the tool calls of a completion apart.
#[derive(Debug)]
pub enum SectionParser {
    /// Parser of text without reasoning and tool calls.
    Plain,
    /// Parser of sections between markers.
    Marked(MarkedParser),
    /// Parser of the harmony format.
    Harmony(HarmonyParser),
}

impl SectionParser {
    /// Parser of the completion of `prompt`, whose end may have opened a section already. Without
    /// `tools`, tool calls are text.
    pub fn new(markers: &Markers, prompt: &str, tools: &[Value]) -> SectionParser {
        let markers = if tools.is_empty() { markers.reasoning_only() } else { markers.clone() };
        match markers {
            Markers { harmony: true, .. } => {
                SectionParser::Harmony(HarmonyParser::new(prompt, !tools.is_empty()))
            }
            markers if markers == Markers::default() => SectionParser::Plain,
            markers => SectionParser::Marked(MarkedParser::new(markers, prompt, tools)),
        }
    }

    /// True within reasoning, as far as is certain.
    pub fn is_reasoning(&self) -> bool {
        match self {
            SectionParser::Plain => false,
            SectionParser::Marked(marked) => marked.is_reasoning(),
            SectionParser::Harmony(harmony) => harmony.is_reasoning(),
        }
    }

    /// True if the last piece belongs to the text, as far as is certain.
    pub fn is_in_text(&self) -> bool {
        match self {
            SectionParser::Plain => true,
            SectionParser::Marked(marked) => marked.is_in_text(),
            SectionParser::Harmony(harmony) => !harmony.is_reasoning(),
        }
    }

    /// Position in the completion. Grammars for harmony know theirs themselves.
    pub fn position(&self) -> Position {
        match self {
            SectionParser::Plain | SectionParser::Harmony(_) => Position::Text,
            SectionParser::Marked(marked) => marked.position(),
        }
    }

    /// Text of the tool call that has begun.
    pub fn open_call(&self) -> &str {
        match self {
            SectionParser::Plain | SectionParser::Harmony(_) => "",
            SectionParser::Marked(marked) => marked.open_call(),
        }
    }

    /// Advances by a piece of text, and returns the deltas that are certain.
    pub fn push(&mut self, text: &str) -> Vec<Delta> {
        match self {
            SectionParser::Plain if text.is_empty() => Vec::new(),
            SectionParser::Plain => vec![Delta::Text(text.to_owned())],
            SectionParser::Marked(marked) => marked.push(text),
            SectionParser::Harmony(harmony) => harmony.push(text),
        }
    }

    /// Ends the completion, and returns the rest.
    pub fn finish(&mut self) -> Vec<Delta> {
        match self {
            SectionParser::Plain => Vec::new(),
            SectionParser::Marked(marked) => marked.finish(),
            SectionParser::Harmony(harmony) => harmony.finish(),
        }
    }
}
