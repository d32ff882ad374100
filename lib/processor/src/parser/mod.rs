//! Parser of a completion: from tokens to deltas of reasoning, text and tool calls, up to a stop
//! string.

mod arguments;
mod delta;
mod harmony;
mod literal;
mod marked;
mod markers;
mod output;
mod sections;
mod tool_calls;

pub use delta::Delta;
pub use marked::Position;
pub use markers::{Markers, Pair};
pub use sections::SectionParser;
pub use tool_calls::ToolCall;

use mlxk_core::Result;

use crate::text::detokenizer::Detokenizer;
use crate::text::stop::{Passed, Stop};
use crate::text::tokenizer::Tokenizer;
use tool_calls::calls;

/// Parser of one completion.
pub struct Parser {
    detokenizer: Detokenizer,
    stop: Stop,
    sections: SectionParser,
    /// Text so far, if the text as a whole is a tool call that the request requires.
    required_call: Option<String>,
    /// Number of tool calls so far.
    calls: u64,
    seed: u64,
}

impl Parser {
    /// Parser of a completion whose text ends at any of `stop`, with a new `sections`. `seed`
    /// determines the ids of tool calls that have none; it differs between the turns of a
    /// conversation. `required_call` is true if the text is a tool call.
    ///
    /// # Errors
    /// If the tokenizer belongs to no model that generates text.
    pub fn new(
        tokenizer: &Tokenizer,
        stop: &[String],
        sections: SectionParser,
        seed: u64,
        required_call: bool,
    ) -> Result<Parser> {
        let stop = Stop::new(stop.iter().cloned());
        let detokenizer = tokenizer.detokenizer()?;
        let required_call = required_call.then(String::new);
        Ok(Parser { detokenizer, stop, sections, required_call, calls: 0, seed })
    }

    /// Advances by a token. Returns the deltas that are certain, and true if a stop string ended
    /// the completion.
    pub fn push(
        &mut self,
        id: u32,
        tokenizer: &Tokenizer,
        markers: &Markers,
    ) -> (Vec<Delta>, bool) {
        let text = match (tokenizer.text_token(id), &self.sections) {
            (Some(token), _) => self.detokenizer.push(&token),
            (None, SectionParser::Plain) => String::new(),
            (None, _) => match tokenizer.special_token(id).filter(|token| markers.contain(token)) {
                Some(marker) => self.detokenizer.finish() + &marker,
                None => String::new(),
            },
        };
        let deltas = self.sections.push(&text);
        let (deltas, stopped) = self.cut(deltas);
        (self.complete(deltas, stopped), stopped)
    }

    /// Ends the completion, and returns the rest.
    pub fn finish(&mut self) -> Vec<Delta> {
        let rest = self.detokenizer.finish();
        let mut deltas = self.sections.push(&rest);
        deltas.extend(self.sections.finish());
        let (mut deltas, stopped) = self.cut(deltas);
        if !stopped {
            deltas.extend(self.release());
        }
        self.complete(deltas, true)
    }

    /// True within reasoning, as far as is certain.
    pub fn is_reasoning(&self) -> bool {
        self.sections.is_reasoning()
    }

    /// True if the last token belongs to the text, as far as is certain.
    pub fn is_in_text(&self) -> bool {
        self.required_call.is_none() && self.sections.is_in_text()
    }

    /// Position in the completion, as far as is certain.
    pub fn position(&self) -> Position {
        self.sections.position()
    }

    /// Text of the tool call that has begun.
    pub fn open_call(&self) -> &str {
        self.sections.open_call()
    }

    /// Stop string that ended the completion, if one did.
    pub fn stop_string(&self) -> Option<&str> {
        self.stop.found()
    }

    /// True if the completion has a tool call.
    pub fn has_tool_calls(&self) -> bool {
        self.calls > 0
    }

    /// True if text is held back with which a stop string may begin.
    pub fn holds_back(&self) -> bool {
        self.stop.holds()
    }

    /// Cuts the deltas at a stop string in the text. Returns true if there is one. The end of the
    /// text with which one may begin is held back. A required call has no stop strings.
    fn cut(&mut self, deltas: Vec<Delta>) -> (Vec<Delta>, bool) {
        if self.required_call.is_some() {
            return (deltas, false);
        }
        let mut passed = Vec::new();
        for delta in deltas {
            let (text, last) = match delta {
                Delta::Text(text) => match self.stop.push(&text) {
                    Passed::Text(text) => (text, false),
                    Passed::Last(text) => (text, true),
                },
                other => {
                    passed.extend(self.release());
                    passed.push(other);
                    continue;
                }
            };
            passed.extend((!text.is_empty()).then_some(Delta::Text(text)));
            if last {
                return (passed, true);
            }
        }
        (passed, false)
    }

    /// Releases the text that was held back.
    fn release(&mut self) -> Option<Delta> {
        Some(self.stop.finish()).filter(|text| !text.is_empty()).map(Delta::Text)
    }

    /// Counts the tool calls, and gives an id to those that have none.
    fn complete(&mut self, deltas: Vec<Delta>, last: bool) -> Vec<Delta> {
        let mut deltas = self.collect_required_call(deltas, last);
        for delta in &mut deltas {
            if let Delta::ToolCall(call) = delta {
                self.calls += 1;
                if call.id.is_empty() {
                    call.id = call_id(self.seed, self.calls);
                }
            }
        }
        deltas
    }

    /// Collects the text of a required call, and adds the call at the end of the completion.
    fn collect_required_call(&mut self, mut deltas: Vec<Delta>, last: bool) -> Vec<Delta> {
        let Some(call) = &mut self.required_call else { return deltas };
        deltas.retain(|delta| match delta {
            Delta::Text(text) => {
                call.push_str(text);
                false
            }
            _ => true,
        });
        let text = if last { std::mem::take(call) } else { String::new() };
        // A call that was cut is dropped.
        deltas.extend(calls(&text, &[]).into_iter().flatten().map(Delta::ToolCall));
        deltas
    }
}

/// Id of nine hexadecimal digits, the length that Mistral's templates require; the same for the
/// same seed and number.
fn call_id(seed: u64, number: u64) -> String {
    let mixed = (seed ^ number.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:09x}", mixed >> 28)
}
