//! Division of tokens into words. Source: the tokenizer of openai-whisper.

use super::vocabulary::Vocabulary;

/// Text of several tokens, and their number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Text.
    pub text: String,
    /// Number of tokens.
    pub tokens: usize,
}

/// Punctuation that is a word of its own.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Words of `tokens`: by their spaces if the language is `spaced`, or else by characters.
pub fn pieces(words: &Vocabulary, tokens: &[u32], spaced: bool) -> Vec<Piece> {
    let characters = characters(words, tokens);
    if !spaced {
        return characters;
    }
    let mut all: Vec<Piece> = Vec::new();
    for piece in characters {
        let alone = piece.text.starts_with(' ') || PUNCTUATION.contains(piece.text.trim());
        match all.last_mut().filter(|_| !alone) {
            Some(last) => {
                last.text.push_str(&piece.text);
                last.tokens += piece.tokens;
            }
            None => all.push(piece),
        }
    }
    all
}

/// The fewest tokens each that are whole characters.
fn characters(words: &Vocabulary, tokens: &[u32]) -> Vec<Piece> {
    let mut all = Vec::new();
    let (mut bytes, mut count) = (Vec::new(), 0);
    for &token in tokens {
        bytes.extend(words.tokenizer.bytes(token));
        count += 1;
        // Of a character that is cut off the rest may follow; of one that is none, nothing does.
        let open = std::str::from_utf8(&bytes).is_err_and(|e| e.error_len().is_none());
        if !open {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            all.push(Piece { text, tokens: std::mem::take(&mut count) });
            bytes.clear();
        }
    }
    if count > 0 {
        all.push(Piece { text: String::from_utf8_lossy(&bytes).into_owned(), tokens: count });
    }
    all
}
