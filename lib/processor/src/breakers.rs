//! Sequence breakers of DRY as token ids: strings across which repetitions do not count.
//!
//! A breaker may start within a token and continue in the following tokens, in any tokenization of
//! the text. So each token in which a breaker can start is a head, with the tails that complete the
//! breaker, as in llama.cpp.

use std::collections::HashMap;

use mlxk_core::Result;

use crate::fields::wrong;
use crate::text::tokenizer::{SPECIAL, Tokenizer};

/// Default sequence breakers, those of llama.cpp.
pub const DEFAULT: [&str; 4] = ["\n", ":", "\"", "*"];

/// Maximum number of sequence breakers.
const MAX_BREAKERS: usize = 64;

/// Maximum length of a sequence breaker, in bytes; longer ones are truncated.
const MAX_BYTES: usize = 40;

/// Maximum length of a tail, in tokens; longer ones are truncated.
const MAX_TAIL: usize = 20;

/// Sequence breakers in the token ids of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Breakers {
    /// Tails that complete a breaker after a head; an empty one after a token that contains it.
    tails: HashMap<u32, Vec<Vec<u32>>>,
}

impl Breakers {
    /// Breakers of some strings; empty ones are ignored.
    ///
    /// # Errors
    /// [`Kind::Validation`](mlxk_core::Kind::Validation) if there are more than 64 strings; another
    /// error if the tokenizer belongs to no model that generates text.
    pub fn new(strings: &[String], tokenizer: &Tokenizer) -> Result<Breakers> {
        if strings.len() > MAX_BREAKERS {
            return Err(wrong("dry_sequence_breakers", "up to 64 texts"));
        }
        let mut breakers = Breakers::default();
        let words = tokenizer.words()?;
        for string in strings.iter().map(|string| cut(string)).filter(|string| !string.is_empty()) {
            for (id, word) in words.iter().enumerate() {
                let word = word.strip_prefix(&[SPECIAL]).unwrap_or(word);
                for length in overlaps(word, string.as_bytes()) {
                    // A token may end within a character, whose remaining bytes are not text.
                    let Some(rest) = string.get(length..) else { continue };
                    let mut tail = tokenizer.encode_part(rest)?;
                    tail.truncate(MAX_TAIL);
                    breakers.insert(id as u32, tail);
                }
            }
        }
        Ok(breakers)
    }

    /// Adds a breaker of a head and its tail.
    pub fn insert(&mut self, head: u32, tail: Vec<u32>) {
        let tails = self.tails.entry(head).or_default();
        if !tails.contains(&tail) {
            tails.push(tail);
        }
    }

    /// Number of tokens at the end of `tokens` after the last breaker.
    pub fn tokens_after(&self, tokens: &[u32]) -> usize {
        for (after, head) in tokens.iter().rev().enumerate() {
            let following = &tokens[tokens.len() - after..];
            let tails = self.tails.get(head).into_iter().flatten();
            let complete = tails.filter(|tail| following.starts_with(tail));
            if let Some(longest) = complete.map(Vec::len).max() {
                return after - longest;
            }
        }
        tokens.len()
    }

    /// True if a token contains a whole breaker.
    pub fn contains(&self, id: u32) -> bool {
        self.tails.get(&id).is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }
}

/// Start of a breaker up to the largest length.
fn cut(string: &str) -> &str {
    let length = (0..=MAX_BYTES.min(string.len())).rev().find(|&at| string.is_char_boundary(at));
    &string[..length.unwrap_or(0)]
}

/// Lengths of the starts of `string` with which `word` ends; all of `string` if it is anywhere in
/// `word`.
fn overlaps(word: &[u8], string: &[u8]) -> Vec<usize> {
    if word.windows(string.len()).any(|part| part == string) {
        return vec![string.len()];
    }
    let lengths = 1..string.len().min(word.len() + 1);
    lengths.filter(|&length| word.ends_with(&string[..length])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breaker_overlaps_with_the_ends_of_tokens() {
        assert_eq!(overlaps(b"a\n b", b"\n"), [1]);
        assert_eq!(overlaps(b"xa", b"ab"), [1]);
        assert_eq!(overlaps(b"xaba", b"abac"), [1, 3]);
        assert_eq!(overlaps(b"ab", b"ba c"), [1]);
        assert!(overlaps(b"b", b"abc").is_empty());
    }

    #[test]
    fn tokens_are_counted_after_the_longest_breaker_that_comes_last() {
        let mut breakers = Breakers::default();
        breakers.insert(7, vec![]);
        breakers.insert(5, vec![6]);
        breakers.insert(5, vec![6, 8]);
        for (tokens, after) in [
            (&[1, 2, 3][..], 3),
            (&[1, 7, 2, 3], 2),
            (&[7], 0),
            (&[5, 6, 1], 1),
            (&[5, 6, 8, 1], 1),
            (&[5, 8, 6], 3),
            (&[1, 5], 2),
        ] {
            assert_eq!(breakers.tokens_after(tokens), after, "{tokens:?}");
        }
        assert!(breakers.contains(7) && !breakers.contains(5));
    }
}
