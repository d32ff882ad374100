//! One answer, from tokens to what a reader gets: reasoning, text and calls, up to a stop string.

mod harmony;
mod literal;
mod marked;
mod markers;
mod output;
mod tool_calls;

pub use marked::{Piece, Place, Reader};
pub use markers::{Marks, Pair};
pub use tool_calls::Call;
use tool_calls::calls;

use mlxk_core::Result;

use crate::text::detokenizer::Detokenizer;
use crate::text::stop::{Passed, Stop};
use crate::text::tokenizer::Tokenizer;

/// An answer in the making.
pub struct Answer {
    detokenizer: Detokenizer,
    stop: Stop,
    reader: Reader,
    /// What there is of a text that is to be a call.
    call: Option<String>,
    /// Calls given so far.
    calls: u64,
    seed: u64,
}

impl Answer {
    /// An answer whose text ends at any of `stop`. `seed` makes the ids of calls that have none, and is
    /// another one for every turn of a conversation.
    /// `demanded` says that its text is to be a call.
    ///
    /// # Errors
    /// If the tokenizer is not one of a model that writes text.
    pub fn new(
        tokenizer: &Tokenizer,
        stop: &[String],
        reader: Reader,
        seed: u64,
        demanded: bool,
    ) -> Result<Answer> {
        let stop = Stop::new(stop.iter().cloned());
        let detokenizer = tokenizer.detokenizer()?;
        let call = demanded.then(String::new);
        Ok(Answer { detokenizer, stop, reader, call, calls: 0, seed })
    }

    /// What the next token settles, and whether a stop string ended the answer.
    pub fn push(&mut self, id: u32, tokenizer: &Tokenizer, marks: &Marks) -> (Vec<Piece>, bool) {
        let text = match (tokenizer.text_token(id), &self.reader) {
            (Some(token), _) => self.detokenizer.push(&token),
            (None, Reader::Plain) => String::new(),
            (None, _) => match tokenizer.special_token(id).filter(|token| marks.hold(token)) {
                Some(mark) => self.detokenizer.finish() + &mark,
                None => String::new(),
            },
        };
        let pieces = self.reader.push(&text);
        let (pieces, stopped) = self.cut(pieces);
        (self.told(pieces, stopped), stopped)
    }

    /// The rest, when no more tokens come.
    pub fn finish(&mut self) -> Vec<Piece> {
        let rest = self.detokenizer.finish();
        let mut pieces = self.reader.push(&rest);
        pieces.extend(self.reader.finish());
        let (mut pieces, stopped) = self.cut(pieces);
        if !stopped {
            pieces.extend(self.held());
        }
        self.told(pieces, true)
    }

    /// True while the model reasons, as far as is known yet.
    pub fn reasons(&self) -> bool {
        self.reader.reasons()
    }

    /// Whether the token that came last is of the text, as far as is known yet.
    pub fn speaks(&self) -> bool {
        self.call.is_none() && self.reader.speaks()
    }

    /// Where the answer is, as far as is known yet.
    pub fn place(&self) -> Place {
        self.reader.place()
    }

    /// What there is of a call that has begun.
    pub fn begun(&self) -> &str {
        self.reader.begun()
    }

    /// The stop string that ended the answer, if one did.
    pub fn stopped_by(&self) -> Option<&str> {
        self.stop.found()
    }

    /// True if a function is to be called.
    pub fn calls(&self) -> bool {
        self.calls > 0
    }

    /// The pieces up to a stop string in the text, and whether there was one. What may become one
    /// is held back; a text that is to be a call has none.
    fn cut(&mut self, pieces: Vec<Piece>) -> (Vec<Piece>, bool) {
        if self.call.is_some() {
            return (pieces, false);
        }
        let mut passed = Vec::new();
        for piece in pieces {
            let (text, last) = match piece {
                Piece::Text(text) => match self.stop.push(&text) {
                    Passed::Text(text) => (text, false),
                    Passed::Last(text) => (text, true),
                },
                other => {
                    passed.extend(self.held());
                    passed.push(other);
                    continue;
                }
            };
            passed.extend((!text.is_empty()).then_some(Piece::Text(text)));
            if last {
                return (passed, true);
            }
        }
        (passed, false)
    }

    /// Whether text is held back that may be the beginning of a stop string.
    pub fn holds(&self) -> bool {
        self.stop.holds()
    }

    /// What was held back and is no stop string.
    fn held(&mut self) -> Option<Piece> {
        Some(self.stop.finish()).filter(|text| !text.is_empty()).map(Piece::Text)
    }

    /// Counts the calls, and gives those an id that have none.
    fn told(&mut self, pieces: Vec<Piece>, last: bool) -> Vec<Piece> {
        let mut pieces = self.demanded(pieces, last);
        for piece in &mut pieces {
            if let Piece::Call(call) = piece {
                self.calls += 1;
                if call.id.is_empty() {
                    call.id = call_id(self.seed, self.calls);
                }
            }
        }
        pieces
    }

    /// The same with a text that is to be a call as one, at its end.
    fn demanded(&mut self, mut pieces: Vec<Piece>, last: bool) -> Vec<Piece> {
        let Some(call) = &mut self.call else { return pieces };
        pieces.retain(|piece| match piece {
            Piece::Text(text) => {
                call.push_str(text);
                false
            }
            _ => true,
        });
        let text = if last { std::mem::take(call) } else { String::new() };
        // One that was cut is none.
        pieces.extend(calls(&text, &[]).into_iter().flatten().map(Piece::Call));
        pieces
    }
}

/// Nine letters and digits, which is what Mistral's templates ask for; the same for the same seed.
fn call_id(seed: u64, number: u64) -> String {
    let mixed = (seed ^ number.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:09x}", mixed >> 28)
}
