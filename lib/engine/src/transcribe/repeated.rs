//! Tokens of a window as text, and what is no speech in them.

use mlxk_core::Result;
use mlxk_processor::Tokenizer;

/// Text of tokens, without special ones but those named `kept`.
///
/// # Errors
/// If the tokenizer has no decoder that is known.
pub fn text(tokenizer: &Tokenizer, tokens: &[u32], kept: &[&str]) -> Result<String> {
    let mut detokenizer = tokenizer.detokenizer()?;
    let mut text = String::new();
    for &id in tokens {
        match (tokenizer.special_token(id), tokenizer.token(id)) {
            (Some(special), _) if kept.contains(&special.as_str()) => text += &special,
            (None, Some(token)) => text += &detokenizer.push(&token),
            _ => {}
        }
    }
    Ok(text + &detokenizer.finish())
}

/// Number of tokens up to the end of the first time that a group of tokens occurs, if `tokens` end
/// with nothing but repetitions of it.
pub fn repeated(tokens: &[u32]) -> Option<usize> {
    /// Tokens of the longest group.
    const GROUP: usize = 16;
    /// Tokens that are no speech if they repeat a group.
    const MANY: usize = 40;
    let last = tokens.len().checked_sub(MANY).map(|first| &tokens[first..])?;
    let period = (1..=GROUP).find(|&n| last.iter().zip(&last[n..]).all(|(a, b)| a == b))?;
    let matches = |&at: &usize| tokens[at - 1] == tokens[at - 1 + period];
    let first = (1..=tokens.len() - period).rev().take_while(matches).last()?;
    Some(first - 1 + period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_cut_to_the_first_time() {
        let looped = |group: &[u32], times: usize| [&[7, 8], &group.repeat(times)[..]].concat();
        assert_eq!(repeated(&looped(&[1, 2, 3], 20)), Some(5));
        assert_eq!(repeated(&looped(&[1], 40)), Some(3));
        assert_eq!(repeated(&looped(&[1], 20)), None);
        assert_eq!(repeated(&(0..100).collect::<Vec<u32>>()), None);
    }
}
