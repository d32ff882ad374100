//! Vocabulary of a tokenizer: tokens and their kinds.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::read::Gguf;

/// Vocabulary read from the metadata.
#[derive(Debug)]
pub struct Vocabulary<'g> {
    /// Texts of the tokens; the index is the id.
    pub tokens: &'g [&'g str],
    /// Ids by text, without reserved ids.
    pub ids: HashMap<&'g str, usize>,
    kinds: Option<&'g [i64]>,
}

/// Kind of a token (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Plain text.
    Normal,
    /// Control token or unknown token, which never occurs in text.
    Special,
    /// Added token: text that is never split.
    Added,
    /// Reserved id without a use.
    Unused,
    /// Single byte, spelled `<0x0A>`.
    Byte,
}

impl<'g> Vocabulary<'g> {
    /// Reads the vocabulary.
    ///
    /// # Errors
    /// A phrase, if a token occurs twice, or the list of kinds has another length.
    pub fn read(gguf: &'g Gguf) -> Result<Vocabulary<'g>, String> {
        let tokens: &[&str] = gguf.need("tokenizer.ggml.tokens")?;
        let kinds: Option<&[i64]> = gguf.find("tokenizer.ggml.token_type")?;
        if let Some(kinds) = kinds.filter(|kinds| kinds.len() != tokens.len()) {
            return Err(format!("{} tokens, but {} token types", tokens.len(), kinds.len()));
        }
        let mut vocabulary = Vocabulary { tokens, ids: HashMap::new(), kinds };
        for (id, token) in tokens.iter().enumerate() {
            if vocabulary.kind(id) == TokenKind::Unused {
                continue;
            }
            if let Some(first) = vocabulary.ids.insert(token, id) {
                return Err(format!("the token {token:?} is there twice: {first} and {id}"));
            }
        }
        Ok(vocabulary)
    }

    /// Kind of the token `id`.
    pub fn kind(&self, id: usize) -> TokenKind {
        match self.kinds.map_or(1, |kinds| kinds[id]) {
            2 | 3 => TokenKind::Special,
            4 => TokenKind::Added,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }

    /// Value of `vocab` in tokenizer.json: ids by text, without reserved ids.
    pub fn map(&self) -> Value {
        let used =
            self.tokens.iter().enumerate().filter(|(id, _)| self.kind(*id) != TokenKind::Unused);
        Value::Object(used.map(|(id, token)| (token.to_string(), id.into())).collect::<Map<_, _>>())
    }

    /// Value of `added_tokens` in tokenizer.json: tokens that are matched before a text is split.
    pub fn added(&self) -> Vec<Value> {
        let added = |(id, token): (usize, &&str)| {
            let kind = self.kind(id);
            matches!(kind, TokenKind::Special | TokenKind::Added).then(|| {
                json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": kind == TokenKind::Special,
                })
            })
        };
        self.tokens.iter().enumerate().filter_map(added).collect()
    }
}
