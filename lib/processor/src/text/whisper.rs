//! Vocabularies of Whisper, which its checkpoints in OpenAI's and MLX's form do not carry.
//!
//! The joins of their tokens are data of openai-whisper (MIT, see `data/whisper/LICENSE`): the low
//! bytes of all first parts, their high bytes, then the second parts likewise, compressed by zlib.

use std::io::Read;

use flate2::read::ZlibDecoder;
use mlxk_core::{Error, Kind, Result};

use super::byte_level::byte_level;
use super::tokenizer::Tokenizer;
use crate::transcript::language::CODES;

/// Joins of GPT-2's tokens, which the models for English have.
const ENGLISH: &[u8] = include_bytes!("../../data/whisper/english.merges");

/// Joins of the tokens for all languages.
const MULTILINGUAL: &[u8] = include_bytes!("../../data/whisper/multilingual.merges");

/// Tokens of the smallest vocabulary for all languages; one less is the vocabulary for English.
const MULTILINGUAL_SIZE: usize = 51_865;

/// Timestamps from 0 to 30 seconds.
const TIMESTAMPS: usize = 1501;

/// Tokenizer of a Whisper model with `size` tokens.
///
/// # Errors
/// [`Kind::InvalidModel`] if no such vocabulary was published.
pub fn whisper(size: usize) -> Result<Tokenizer> {
    let multilingual = size >= MULTILINGUAL_SIZE;
    let count = size.checked_sub(51_765 + usize::from(multilingual));
    let Some(languages) =
        count.and_then(|count| CODES.get(..count)).filter(|known| known.len() >= 99)
    else {
        let message = format!("no vocabulary of Whisper has {size} tokens");
        return Err(Error::new(Kind::InvalidModel, "config.json", message)
            .hint("a model with a vocabulary of its own needs its tokenizer.json"));
    };
    let data = if multilingual { MULTILINGUAL } else { ENGLISH };
    // The last token before the special ones of all languages has no text.
    let blank = multilingual.then_some(None);
    let joins = joins(data)?.into_iter().map(Some).chain(blank);
    Tokenizer::of(byte_level(joins, &special(languages))?)
}

/// Special tokens in the order of their ids.
fn special(languages: &[&str]) -> Vec<String> {
    let first = ["endoftext", "startoftranscript"].into_iter();
    let rest = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"];
    let named = first.chain(languages.iter().copied()).chain(rest).map(str::to_owned);
    let times = (0..TIMESTAMPS).map(|step| format!("{:.2}", step as f64 * 0.02));
    named.chain(times).map(|name| format!("<|{name}|>")).collect()
}

/// Joins of a vocabulary.
fn joins(data: &[u8]) -> Result<Vec<[u16; 2]>> {
    let mut all = Vec::new();
    ZlibDecoder::new(data)
        .read_to_end(&mut all)
        .map_err(|e| Error::new(Kind::Execution, "", format!("the built-in vocabulary: {e}")))?;
    let count = all.len() / 4;
    let number = |at: usize| u16::from_le_bytes([all[at], all[at + count]]);
    Ok((0..count).map(|at| [number(at), number(2 * count + at)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabularies_are_those_of_openai() {
        for (size, text, ids, end) in [
            (51_864, " And so my fellow Americans", vec![843, 523, 616, 5891, 3399], 50_256),
            (51_865, " And so my fellow Americans", vec![400, 370, 452, 7177, 6280], 50_257),
            (51_866, " hello world", vec![7751, 1002], 50_257),
        ] {
            let tokenizer = whisper(size).unwrap();
            assert_eq!(tokenizer.encode_part(text).unwrap(), ids);
            assert_eq!(tokenizer.id("<|endoftext|>"), Some(end));
            assert_eq!(tokenizer.id("<|30.00|>"), Some(size as u32 - 1));
            assert_eq!(tokenizer.id("<|31.00|>"), None);
        }
        assert_eq!(whisper(51_865).unwrap().id("<|notimestamps|>"), Some(50_363));
        assert_eq!(whisper(51_865).unwrap().bytes(50_255), "场".as_bytes());
        let refused = whisper(1908).err().map(|e| e.message);
        assert_eq!(refused.as_deref(), Some("no vocabulary of Whisper has 1908 tokens"));
    }
}
