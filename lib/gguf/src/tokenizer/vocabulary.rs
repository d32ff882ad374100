//! The tokens and what kind each is.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::read::Gguf;

/// All tokens; the index is the id.
#[derive(Debug)]
pub struct Vocabulary<'g> {
    /// Their texts.
    pub tokens: &'g [&'g str],
    /// Their ids.
    pub ids: HashMap<&'g str, usize>,
    kinds: Option<&'g [i64]>,
}

/// What a token is for, by its number in `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Text.
    Normal,
    /// A mark that never stands in text: control tokens and the unknown one.
    Special,
    /// Text that is always taken whole.
    Added,
    /// Nothing: the id is only reserved.
    Unused,
    /// A single byte, spelled `<0x0A>`.
    Byte,
}

impl<'g> Vocabulary<'g> {
    /// Reads the tokens. Errors if one is there twice, or some have no kind.
    pub fn read(gguf: &'g Gguf) -> Result<Vocabulary<'g>, String> {
        let tokens: &[&str] = gguf.need("tokenizer.ggml.tokens")?;
        let kinds: Option<&[i64]> = gguf.find("tokenizer.ggml.token_type")?;
        if let Some(kinds) = kinds.filter(|kinds| kinds.len() != tokens.len()) {
            return Err(format!("{} tokens, but {} token types", tokens.len(), kinds.len()));
        }
        let mut vocabulary = Vocabulary { tokens, ids: HashMap::new(), kinds };
        for (id, token) in tokens.iter().enumerate() {
            if vocabulary.kind(id) == Use::Unused {
                continue;
            }
            if let Some(first) = vocabulary.ids.insert(token, id) {
                return Err(format!("the token {token:?} is there twice: {first} and {id}"));
            }
        }
        Ok(vocabulary)
    }

    /// What the token `id` is for.
    pub fn kind(&self, id: usize) -> Use {
        match self.kinds.map_or(1, |kinds| kinds[id]) {
            2 | 3 => Use::Special,
            4 => Use::Added,
            5 => Use::Unused,
            6 => Use::Byte,
            _ => Use::Normal,
        }
    }

    /// The `vocab` of a model: text to id, without ids that are only reserved.
    pub fn map(&self) -> Value {
        let used = self.tokens.iter().enumerate().filter(|(id, _)| self.kind(*id) != Use::Unused);
        Value::Object(used.map(|(id, token)| (token.to_string(), id.into())).collect::<Map<_, _>>())
    }

    /// The `added_tokens`: those that are found in a text before it is split.
    pub fn added(&self) -> Vec<Value> {
        let added = |(id, token): (usize, &&str)| {
            let kind = self.kind(id);
            matches!(kind, Use::Special | Use::Added).then(|| {
                json!({
                    "id": id,
                    "content": token,
                    "single_word": false,
                    "lstrip": false,
                    "rstrip": false,
                    "normalized": false,
                    "special": kind == Use::Special,
                })
            })
        };
        self.tokens.iter().enumerate().filter_map(added).collect()
    }
}
