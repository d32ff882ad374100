//! Pieces of a long text that give the same tokens as the whole, so that a text is encoded in
//! little memory, and encoding can end between two pieces.
//!
//! A text is cut between two kinds of characters, as between a word and the space behind it, where
//! the text around the cut has the same tokens with the cut as without it.

use mlxk_core::Result;

/// Size of a piece, in bytes.
const SIZE: usize = 32 << 10;

/// Largest size of a piece, in bytes. A text without any place for a cut is cut there all the same:
/// such a text is one endless word or space, whose tokens may differ around the cut.
const MAX_SIZE: usize = 8 * SIZE;

/// Text on each side of a cut that shows whether its tokens stay the same, in bytes.
const AROUND: usize = 256;

/// Maximum number of places that are tried in each [`SIZE`] bytes.
const TRIES: usize = 32;

/// Cut of a text.
#[derive(Debug, PartialEq)]
pub struct Cut {
    /// End of the piece.
    pub end: usize,
    /// Start of the rest: behind the piece, or behind a space that the tokenizer puts before each
    /// piece itself.
    pub next: usize,
}

/// First cut of `text`. `encode` gives the tokens of a text.
///
/// # Errors
/// If `encode` fails.
pub fn cut(text: &str, encode: impl Fn(&str) -> Result<Vec<u32>>) -> Result<Cut> {
    if text.len() <= 2 * SIZE {
        return Ok(Cut { end: text.len(), next: text.len() });
    }
    for most in (SIZE..=MAX_SIZE.min(text.len() - 1)).step_by(SIZE) {
        for end in changes(text, most - SIZE / 2, most).take(TRIES) {
            let beyond = end + usize::from(text[end..].starts_with(' '));
            for next in [end, beyond] {
                if next < text.len() && is_clean(text, end, next, &encode)? {
                    return Ok(Cut { end, next });
                }
            }
        }
    }
    let end = floor(text, MAX_SIZE);
    Ok(Cut { end, next: end })
}

/// Places of `text` from `most` down to `least` where the kind of the characters changes.
fn changes(text: &str, least: usize, most: usize) -> impl Iterator<Item = usize> {
    let part = &text[floor(text, least)..floor(text, most)];
    let start = floor(text, least);
    let mut later = None;
    part.char_indices().rev().filter_map(move |(at, c)| {
        let before = later.replace((kind(c), start + at))?;
        (before.0 != kind(c)).then_some(before.1)
    })
}

/// Kind of a character: letter, digit, white space or another one.
fn kind(c: char) -> u8 {
    match c {
        c if c.is_alphabetic() => 0,
        c if c.is_numeric() => 1,
        c if c.is_whitespace() => 2,
        _ => 3,
    }
}

/// True if the text around a cut has the same tokens with the cut as without it.
fn is_clean(
    text: &str,
    end: usize,
    next: usize,
    encode: &impl Fn(&str) -> Result<Vec<u32>>,
) -> Result<bool> {
    let (first, last) = (floor(text, end.saturating_sub(AROUND)), floor(text, next + AROUND));
    let parts = [encode(&text[first..end])?, encode(&text[next..last])?];
    Ok(parts.concat() == encode(&text[first..last])?)
}

/// Last start of a character that is not behind `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}
