//! Sentences and words of tokens with times, whose text is in a list of pieces.

use std::ops::Range;

use mlxk_processor::transcript::{Segment, Word};

use super::decode::compression_ratio;
use super::timed::TimedToken;

/// Mark of the space before a word, as SentencePiece writes it.
const SPACE: char = '▁';

/// Ends of sentences, wherever they stand in a piece. A full stop is one before a space alone.
const ENDS: [char; 5] = ['!', '?', '。', '？', '！'];

/// Seconds after which a sentence is cut before its next word.
const LONGEST: f64 = 30.0;

/// Text and times of tokens.
pub struct Pieces<'a> {
    /// Piece of each token.
    pub vocabulary: &'a [String],
    /// Seconds of a row.
    pub row: f64,
}

impl Pieces<'_> {
    /// True if a token has no text: that of an unknown sound, of a language, and so on.
    pub fn is_special(&self, token: &TimedToken) -> bool {
        let piece = self.vocabulary.get(token.id as usize).map_or("", String::as_str);
        let marked = piece.starts_with("<|") && piece.ends_with("|>");
        marked || ["", "<unk>", "<pad>"].contains(&piece)
    }

    /// Number of tokens of the first sentence of `tokens`; `None` if its end is not known while more
    /// tokens can come.
    pub fn sentence(&self, tokens: &[TimedToken], ended: bool) -> Option<usize> {
        for (i, token) in tokens.iter().enumerate() {
            let next = tokens.get(i + 1);
            let apart = match next {
                Some(next) => self.starts_word(next),
                None => ended,
            };
            let text = self.text(token);
            if text.contains(ENDS) || text.contains('.') && apart {
                return Some(i + 1);
            }
            let length = next.map_or(0, |next| next.rows.end - tokens[0].rows.start);
            if apart && length as f64 * self.row > LONGEST {
                return Some(i + 1);
            }
        }
        ended.then_some(tokens.len()).filter(|&count| count > 0)
    }

    /// Segment of `tokens`, of which there is at least one, in a recording whose rows begin at `start`
    /// and which ends at `end`, in seconds.
    pub fn segment(&self, tokens: &[TimedToken], [start, end]: [f64; 2], words: bool) -> Segment {
        let time = |rows: Range<usize>| {
            let time = |row: usize| (start + row as f64 * self.row).min(end);
            time(rows.start)..time(rows.end)
        };
        let from = tokens.first().map_or(0, |token| token.rows.start);
        let to = tokens.iter().map(|token| token.rows.end).max().unwrap_or(from);
        let logs: f64 = tokens.iter().map(|token| f64::from(token.probability).ln()).sum();
        let word = |tokens: &[TimedToken]| {
            let first = tokens.first().map_or(0, |token| token.rows.start);
            let last = tokens.iter().map(|token| token.rows.end).max().unwrap_or(first);
            let sum: f32 = tokens.iter().map(|token| token.probability).sum();
            Word {
                time: time(first..last),
                text: self.joined(tokens),
                probability: sum / tokens.len().max(1) as f32,
            }
        };
        let same_word = |_: &TimedToken, next: &TimedToken| !self.starts_word(next);
        let all = words.then(|| tokens.chunk_by(same_word).map(word).collect());
        Segment {
            time: time(from..to),
            text: self.joined(tokens),
            tokens: tokens.iter().map(|token| token.id).collect(),
            avg_logprob: (logs / tokens.len().max(1) as f64) as f32,
            compression_ratio: compression_ratio(&self.joined(tokens)),
            words: all.unwrap_or_default(),
            ..Segment::default()
        }
    }

    fn starts_word(&self, token: &TimedToken) -> bool {
        self.vocabulary.get(token.id as usize).is_some_and(|piece| piece.starts_with(SPACE))
    }

    fn text(&self, token: &TimedToken) -> String {
        let piece = self.vocabulary.get(token.id as usize);
        piece.map_or_else(String::new, |piece| piece.replace(SPACE, " "))
    }

    fn joined(&self, tokens: &[TimedToken]) -> String {
        tokens.iter().map(|token| self.text(token)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sentences and words of pieces, each of which covers a row of a second.
    fn sentences(pieces: &[&str]) -> Vec<(String, Vec<String>)> {
        let vocabulary: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
        let pieces = Pieces { vocabulary: &vocabulary, row: 1.0 };
        let token = |i: usize| TimedToken::new(i as u32, i..i + 1, 0.5);
        let tokens: Vec<TimedToken> = (0..vocabulary.len()).map(token).collect();
        let mut rest = &tokens[..];
        let mut found = Vec::new();
        while let Some(count) = pieces.sentence(rest, true) {
            let segment = pieces.segment(&rest[..count], [0.0, 1e3], true);
            found.push((segment.text, segment.words.into_iter().map(|w| w.text).collect()));
            rest = &rest[count..];
        }
        found
    }

    fn texts(pieces: &[&str]) -> Vec<String> {
        sentences(pieces).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn sentences_end_at_marks_before_a_space() {
        assert_eq!(texts(&["▁It", "▁is", "▁3", ".", "5", ".", "▁Yes"]), [" It is 3.5.", " Yes"]);
        assert_eq!(texts(&["▁Is", "▁it", "?", "▁No", "."]), [" Is it?", " No."]);
        assert_eq!(texts(&["▁我", "。", "你"]), [" 我。", "你"]);
        assert!(texts(&[]).is_empty());
    }

    #[test]
    fn words_take_the_pieces_up_to_the_next_space() {
        let words = &sentences(&["▁H", "ello", ",", "▁you", "."])[0].1;
        assert_eq!(words, &[" Hello,", " you."]);
    }

    #[test]
    fn speech_without_marks_is_cut_before_a_word() {
        let pieces: Vec<&str> = ["▁a", "b"].repeat(40);
        let lengths: Vec<usize> = texts(&pieces).iter().map(|text| text.len() / 3 * 2).collect();
        assert_eq!(lengths, [30, 30, 20]);
    }
}
