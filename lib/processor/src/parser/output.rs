//! Output of a parser: deltas that are ready to be sent.

use super::delta::Delta;
use super::tool_calls::ToolCall;

/// Deltas that are ready; sections of one kind have a blank line between them.
#[derive(Debug, Default)]
pub struct Output {
    deltas: Vec<Delta>,
    /// True if there was text, and reasoning, before this section.
    before: [bool; 2],
    /// True if this section has begun.
    begun: bool,
}

impl Output {
    /// Adds reasoning or text. The first text of a section is not blank.
    pub fn push(&mut self, reasoning: bool, text: &str) {
        if text.is_empty() {
            return;
        }
        let kind = usize::from(reasoning);
        let space = if !self.begun && self.before[kind] { "\n\n" } else { "" };
        self.begun = true;
        self.before[kind] = true;
        let text = format!("{space}{text}");
        self.deltas.push(if reasoning { Delta::Reasoning(text) } else { Delta::Text(text) });
    }

    /// Adds a tool call.
    pub fn push_call(&mut self, call: ToolCall) {
        self.deltas.push(Delta::ToolCall(call));
    }

    /// Starts another section.
    pub fn start_section(&mut self) {
        self.begun = false;
    }

    /// True if this section has begun.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes the deltas that were added since.
    pub fn take(&mut self) -> Vec<Delta> {
        std::mem::take(&mut self.deltas)
    }
}
