//! Tokenizer of bytes that are joined by byte pair encoding (arXiv 1508.07909), as GPT-2 has it, from
//! the list of its joins.

use mlxk_core::{Error, Kind, Result};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Tokenizer whose first 256 tokens are the bytes, and whose other tokens are each the two tokens of
/// `joins` in one, or without any text if there are none; `special` come last.
///
/// # Errors
/// If a token is made of one that comes after it.
pub fn byte_level(
    joins: impl Iterator<Item = Option<[u16; 2]>>,
    special: &[String],
) -> Result<tokenizers::Tokenizer> {
    let mut words: Vec<String> = bytes().map(String::from).collect();
    let mut merges = Vec::new();
    for parts in joins {
        let Some(parts) = parts else {
            words.push(String::new());
            continue;
        };
        let [first, second] = parts.map(|part| words.get(usize::from(part)).cloned());
        let (first, second) =
            first.zip(second).ok_or_else(|| failed("a token is made of a later one".into()))?;
        words.push(format!("{first}{second}"));
        merges.push((first, second));
    }
    let vocabulary: Vocab = words.into_iter().zip(0..).collect();
    let model = BPE::builder().vocab_and_merges(vocabulary, merges).build().map_err(failed)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let level = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(level)).with_decoder(Some(level));
    let special = special.iter().map(|text| AddedToken::from(text.as_str(), true));
    tokenizer.add_special_tokens(special).map_err(failed)?;
    Ok(tokenizer)
}

/// Characters that stand for the bytes in the order of GPT-2's tokens: those that can be seen stand
/// for themselves, and come first; the others are shifted beyond Latin 1.
fn bytes() -> impl Iterator<Item = char> {
    let seen = ('!'..='~').chain('\u{a1}'..='\u{ac}').chain('\u{ae}'..='\u{ff}');
    let others = '\u{0}'..='\u{ff}';
    let others =
        others.filter(|c| !matches!(c, '!'..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}'));
    seen.chain(others.zip('\u{100}'..).map(|(_, shifted)| shifted))
}

fn failed(e: tokenizers::Error) -> Error {
    Error::new(Kind::Execution, "", e.to_string())
}
