//! What of an answer is given out.

use super::marked::Piece;
use super::tool_calls::Call;

/// Pieces that are given out, parts of one kind with a blank line between.
#[derive(Debug, Default)]
pub struct Given {
    pieces: Vec<Piece>,
    /// Whether there was text, and reasoning, before this part.
    before: [bool; 2],
    /// Whether this part has begun.
    begun: bool,
}

impl Given {
    /// Gives out a piece of reasoning or of text. What a part begins with is not blank.
    pub fn piece(&mut self, reasoning: bool, text: &str) {
        if text.is_empty() {
            return;
        }
        let kind = usize::from(reasoning);
        let space = if !self.begun && self.before[kind] { "\n\n" } else { "" };
        self.begun = true;
        self.before[kind] = true;
        let text = format!("{space}{text}");
        self.pieces.push(if reasoning { Piece::Reasoning(text) } else { Piece::Text(text) });
    }

    /// Gives out a call.
    pub fn call(&mut self, call: Call) {
        self.pieces.push(Piece::Call(call));
    }

    /// The next piece is of another part.
    pub fn part(&mut self) {
        self.begun = false;
    }

    /// Whether this part has begun.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// What was given out since.
    pub fn take(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.pieces)
    }
}
