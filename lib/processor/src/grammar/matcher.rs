//! State of a grammar, and the items of those arrays in its JSON that differ from each other.
//!
//! A grammar has no memory of items. The text of the answer is followed beside it: a token that ends
//! an item equal to an earlier one is barred.

use std::sync::Arc;
use std::time::{Duration, Instant};

use llguidance::toktrie::{SimpleVob, TokEnv};
use llguidance::{CancellationHandle, Matcher as Grammar, TokenParser};
use serde_json::Value;

use super::watch::Watch;
use crate::schema::{items, property, same, variants};

/// Longest time that a grammar may take for a step.
const LONGEST: Duration = Duration::from_millis(250);

/// Time that a grammar may take for each of many steps.
const EACH: Duration = Duration::from_millis(20);

/// State of a grammar.
pub struct Matcher {
    grammar: Grammar,
    unique: Option<Unique>,
    watch: Arc<Watch>,
    /// Time that the next step may take.
    left: Duration,
}

impl Clone for Matcher {
    fn clone(&self) -> Matcher {
        let Matcher { grammar, unique, watch, left } = self;
        let (grammar, unique) = (grammar.deep_clone(), unique.clone());
        Matcher { grammar, unique, watch: Arc::clone(watch), left: *left }
    }
}

impl Matcher {
    /// State of a grammar without memory, whose steps end by the clock of `watch`.
    pub fn new(parser: TokenParser, watch: &Arc<Watch>) -> Matcher {
        let grammar = Grammar::new(Ok(parser)).into_cancellable();
        Matcher { grammar, unique: None, watch: Arc::clone(watch), left: LONGEST }
    }

    /// Handle that ends the current step and all later ones.
    pub fn cancellation(&self) -> CancellationHandle {
        self.grammar.cancellation_handle().unwrap_or_default()
    }

    /// Takes a step of the grammar. The grammar is given up if it takes longer than [`LONGEST`], or
    /// many steps longer than [`EACH`].
    fn step<T, E: ToString>(
        &mut self,
        step: impl FnOnce(&mut Grammar) -> Result<T, E>,
    ) -> Result<T, String> {
        let (handle, left, start) = (self.cancellation(), self.left + EACH, Instant::now());
        let result = self.watch.limit(left, handle, || step(&mut self.grammar));
        self.left = left.saturating_sub(start.elapsed()).min(LONGEST);
        result.map_err(|e| e.to_string())
    }

    /// Compares the items of arrays with `uniqueItems` in `schema`, that of the text. These items are
    /// strings and numbers.
    pub fn compare_items(&mut self, schema: Value, tokens: &TokEnv) {
        let trie = tokens.tok_trie();
        let ends = |id: &u32| trie.token(*id).iter().any(|byte| b"\",] \n\t\r0".contains(byte));
        let ends = (0..trie.vocab_size() as u32).filter(ends).collect();
        let text = JsonText { schema, stack: Vec::new(), lexeme: Lexeme::None, raw: Vec::new() };
        self.unique = Some(Unique { tokens: tokens.clone(), ends, text });
    }

    /// Mask of the tokens that may come next, or of the end.
    ///
    /// # Errors
    /// The reason, if nothing may come next.
    pub fn compute_mask_or_eos(&mut self) -> Result<SimpleVob, String> {
        let mut mask = self.step(Grammar::compute_mask_or_eos)?;
        if let Some(unique) = &self.unique {
            unique.bar(&mut mask);
        }
        Ok(mask)
    }

    /// Advances by as many of `tokens` as may come next, and returns their number.
    ///
    /// # Errors
    /// The reason, if the grammar cannot go on.
    pub fn try_consume_tokens(&mut self, tokens: &[u32]) -> Result<usize, String> {
        let Some(mut unique) = self.unique.take() else {
            return self.step(|grammar| grammar.try_consume_tokens(tokens));
        };
        let consumed = self.consume_unique(&mut unique, tokens);
        self.unique = Some(unique);
        consumed
    }

    fn consume_unique(&mut self, unique: &mut Unique, tokens: &[u32]) -> Result<usize, String> {
        for (consumed, &token) in tokens.iter().enumerate() {
            let bytes = unique.tokens.tok_trie().token(token).to_vec();
            let taken = !unique.text.repeats(&bytes)
                && self.step(|grammar| grammar.try_consume_tokens(&[token]))? == 1;
            if !taken {
                return Ok(consumed);
            }
            bytes.iter().for_each(|&byte| unique.text.push(byte));
        }
        Ok(tokens.len())
    }
}

/// Text of an answer, and the tokens that may end an item.
#[derive(Clone)]
struct Unique {
    tokens: TokEnv,
    ends: Vec<u32>,
    text: JsonText,
}

impl Unique {
    /// Bars the tokens that end an item equal to an earlier one.
    fn bar(&self, mask: &mut SimpleVob) {
        if self.text.seen().is_none_or(<[Value]>::is_empty) {
            return;
        }
        let trie = self.tokens.tok_trie();
        for &token in &self.ends {
            if mask.is_allowed(token) && self.text.repeats(trie.token(token)) {
                mask.disallow_token(token);
            }
        }
    }
}

/// JSON text as far as it is read.
#[derive(Clone)]
struct JsonText {
    /// Schema of the text.
    schema: Value,
    /// Objects and arrays around the current place.
    stack: Vec<Container>,
    lexeme: Lexeme,
    /// Bytes of the current string or number.
    raw: Vec<u8>,
}

/// Object or array, with the JSON schemas that may apply to it.
#[derive(Clone)]
enum Container {
    Object {
        schemas: Vec<Value>,
        /// Name of the current property; none before it.
        name: Option<String>,
    },
    Array {
        schemas: Vec<Value>,
        /// Place of the current item.
        place: usize,
        /// Items so far, if they have to differ.
        seen: Option<Vec<Value>>,
    },
}

/// Part of the text at the current place.
#[derive(Clone, Copy, PartialEq)]
enum Lexeme {
    None,
    Text,
    /// Text behind a backslash.
    Escape,
    /// Number, boolean or null.
    Word,
}

impl JsonText {
    /// Items so far of the array around the current place, if they have to differ.
    fn seen(&self) -> Option<&[Value]> {
        match self.stack.last() {
            Some(Container::Array { seen, .. }) => seen.as_deref(),
            _ => None,
        }
    }

    /// True if `bytes` end an item that is equal to an earlier one, or begin one that can become no
    /// other.
    fn repeats(&self, bytes: &[u8]) -> bool {
        let Some(seen) = self.seen() else { return false };
        let (mut lexeme, mut raw) = (self.lexeme, self.raw.clone());
        let mut new: Vec<Value> = Vec::new();
        let known =
            |value: &Value, new: &[Value]| seen.iter().chain(new).any(|one| same(one, value));
        for &byte in bytes {
            let (next, ends) = lexeme.next(byte);
            if lexeme != Lexeme::None && !(ends && lexeme == Lexeme::Word) || next != Lexeme::None {
                raw.push(byte);
            }
            if ends {
                match serde_json::from_slice::<Value>(&raw) {
                    Ok(value) if known(&value, &new) => return true,
                    Ok(value) => new.push(value),
                    Err(_) => return false,
                }
                raw.clear();
            }
            lexeme = next;
            // The rest is outside the array.
            if lexeme == Lexeme::None && b"]{[".contains(&byte) {
                return false;
            }
        }
        // No digit may follow a zero.
        lexeme == Lexeme::Word && [&b"0"[..], b"-0"].contains(&&raw[..]) && known(&0.into(), &new)
    }

    /// Advances by a byte.
    fn push(&mut self, byte: u8) {
        let (next, ends) = self.lexeme.next(byte);
        let word = self.lexeme == Lexeme::Word;
        if self.lexeme != Lexeme::None && !(ends && word) || next != Lexeme::None {
            self.raw.push(byte);
        }
        let was = std::mem::replace(&mut self.lexeme, next);
        if ends {
            self.end_lexeme();
        }
        if next == Lexeme::None && (was == Lexeme::None || word) {
            self.structure(byte);
        }
    }

    fn end_lexeme(&mut self) {
        let value = serde_json::from_slice::<Value>(&std::mem::take(&mut self.raw));
        let value = value.unwrap_or_default();
        match (self.stack.last_mut(), value) {
            (Some(Container::Object { name: name @ None, .. }), Value::String(text)) => {
                *name = Some(text);
            }
            (Some(Container::Array { seen: Some(seen), .. }), value) => seen.push(value),
            _ => {}
        }
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'{' => {
                let schemas = self.schemas();
                self.stack.push(Container::Object { schemas, name: None });
            }
            b'[' => {
                let schemas = self.schemas();
                let unique = schemas.iter().any(|schema| schema["uniqueItems"] == true);
                let seen = unique.then(Vec::new);
                self.stack.push(Container::Array { schemas, place: 0, seen });
            }
            b'}' | b']' => drop(self.stack.pop()),
            b',' => match self.stack.last_mut() {
                Some(Container::Object { name, .. }) => *name = None,
                Some(Container::Array { place, .. }) => *place += 1,
                None => {}
            },
            _ => {}
        }
    }

    /// Schemas that may apply to the value at the current place.
    fn schemas(&self) -> Vec<Value> {
        let here: Vec<&Value> = match self.stack.last() {
            None => vec![&self.schema],
            Some(Container::Object { schemas, name }) => {
                let name = name.as_deref().unwrap_or_default();
                schemas.iter().flat_map(|schema| property(schema, name)).collect()
            }
            Some(Container::Array { schemas, place, .. }) => {
                schemas.iter().filter_map(|schema| items(schema, *place)).collect()
            }
        };
        variants(&self.schema, here).into_iter().cloned().collect()
    }
}

impl Lexeme {
    /// Part of the text behind a byte, and true if a string or a word ends with it.
    fn next(self, byte: u8) -> (Lexeme, bool) {
        match (self, byte) {
            (Lexeme::Escape, _) => (Lexeme::Text, false),
            (Lexeme::Text, b'"') => (Lexeme::None, true),
            (Lexeme::Text, b'\\') => (Lexeme::Escape, false),
            (Lexeme::Text, _) => (Lexeme::Text, false),
            (_, b'"') => (Lexeme::Text, self == Lexeme::Word),
            (_, b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\n' | b'\r' | b'\t') => {
                (Lexeme::None, self == Lexeme::Word)
            }
            _ => (Lexeme::Word, false),
        }
    }
}
