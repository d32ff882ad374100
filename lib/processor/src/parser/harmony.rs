//! Parser of OpenAI's harmony format, in which a header before each message states its kind.
//!
//! `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...`; a
//! tool call has its recipient in the header, ` to=functions.name`.

use super::arguments::from_text;
use super::delta::{Delta, open_end};
use super::output::Output;
use super::tool_calls::ToolCall;

/// Markers that end a message.
const ENDS: [&str; 5] = ["<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"];

/// Parser of a completion in the harmony format.
#[derive(Debug)]
pub struct HarmonyParser {
    section: Section,
    /// Text that is not parsed yet.
    held: String,
    output: Output,
    /// True if there was a header.
    has_header: bool,
    /// True if there are tools to call.
    calls: bool,
}

#[derive(Debug, PartialEq)]
enum Section {
    Header,
    Reasoning,
    Text,
    /// Tool call, with the name of the function.
    Call(String),
}

impl HarmonyParser {
    /// Parser of the completion of `prompt`, which ends within a header or behind it. Without
    /// `calls`, tool calls are text.
    pub fn new(prompt: &str, calls: bool) -> HarmonyParser {
        let header = prompt.rfind("<|start|>").map_or("", |at| &prompt[at..]);
        let mut parser = HarmonyParser {
            section: Section::Header,
            held: String::new(),
            output: Output::default(),
            has_header: false,
            calls,
        };
        if !header.contains("<|end|>") {
            parser.held.push_str(header);
            while parser.advance() {}
            // The prompt's own text is not part of the completion.
            parser.output.take();
        }
        parser
    }

    /// True in the sections before the answer.
    pub fn is_reasoning(&self) -> bool {
        self.section != Section::Text
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
        match &self.section {
            // The model does not keep to the format.
            Section::Header if !self.has_header => {
                let text = rest.strip_prefix("<|start|>assistant").unwrap_or(&rest);
                self.output.push(false, text);
            }
            Section::Header => {}
            Section::Reasoning => self.output.push(true, rest.trim_end()),
            Section::Text => self.output.push(false, &rest),
            Section::Call(name) => self.push_call(&name.clone(), &rest),
        }
        self.section = Section::Header;
        self.output.take()
    }

    /// Advances to the next section. Returns false if its start is not complete yet.
    fn advance(&mut self) -> bool {
        if self.section == Section::Header {
            let Some((header, rest)) = self.held.split_once("<|message|>") else { return false };
            self.section = section(header);
            self.held = rest.to_owned();
            self.has_header = true;
            self.output.start_section();
            return true;
        }
        let end = ENDS.iter().filter_map(|end| Some((self.held.find(end)?, end.len()))).min();
        let body = match end {
            Some((at, _)) => at,
            None if matches!(self.section, Section::Call(_)) => return false,
            None => self.held.len() - open_end(&self.held, ENDS),
        };
        let rest = self.held.split_off(body);
        let body = std::mem::replace(&mut self.held, rest);
        match &self.section {
            Section::Call(name) => self.push_call(&name.clone(), &body),
            section => self.output.push(*section == Section::Reasoning, &body),
        }
        if let Some((_, length)) = end {
            // A channel belongs to the next header, the other ends do not.
            let header = self.held.starts_with("<|channel|>");
            self.held.drain(..if header { 0 } else { length });
            self.section = Section::Header;
        }
        end.is_some()
    }

    fn push_call(&mut self, name: &str, body: &str) {
        match from_text(body).filter(|_| self.calls) {
            Some(arguments) => {
                let call = ToolCall { id: String::new(), name: name.to_owned(), arguments };
                self.output.push_call(call);
            }
            None => self.output.push(false, body),
        }
    }
}

/// Section that a header announces.
fn section(header: &str) -> Section {
    let recipient = header.split("to=").nth(1).map(word);
    if let Some(name) = recipient.filter(|name| !name.is_empty() && *name != "assistant") {
        return Section::Call(name.strip_prefix("functions.").unwrap_or(name).to_owned());
    }
    match header.rsplit("<|channel|>").next().map(word) {
        Some("analysis") => Section::Reasoning,
        _ => Section::Text,
    }
}

/// Start of `text` up to a space or a marker.
fn word(text: &str) -> &str {
    text.split([' ', '<']).next().unwrap_or_default()
}
