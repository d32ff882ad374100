//! Deltas: the pieces of a completion, classified by a parser.

use super::tool_calls::ToolCall;

/// Piece of a completion.
#[derive(Debug, PartialEq)]
pub enum Delta {
    /// Reasoning before the answer.
    Reasoning(String),
    /// Text of the answer.
    Text(String),
    /// Complete tool call.
    ToolCall(ToolCall),
}

/// Length in bytes of the longest end of `text` with which one of `markers` may begin.
pub fn open_end<'m>(text: &str, markers: impl IntoIterator<Item = &'m str>) -> usize {
    let open = |marker: &str| {
        let starts = marker.char_indices().map(|(at, _)| at).rev();
        starts.filter(|&at| at > 0).find(|&at| text.ends_with(&marker[..at])).unwrap_or(0)
    };
    markers.into_iter().map(open).max().unwrap_or(0)
}
