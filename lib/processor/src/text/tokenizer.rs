//! Text to tokens and back, and the tokens that have a meaning of their own.

use std::collections::{BTreeMap, BTreeSet};

use mlxk_core::{Error, Facts, Kind, Result};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokenizers::AddedToken;
use tokenizers::models::bpe::BPE;

use super::detokenizer::Detokenizer;
use crate::event::{Likelihood, Told};
use crate::parser::Pair;
use crate::sampling::Logprobs;

/// Ends of a turn that no model writes for another reason. Some checkpoints name only the end of
/// the document as their end, and would go on with the other side's turn.
const END_OF_TURN: [&str; 7] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|return|>",
    "<|call|>",
];

/// The largest vocabulary that rules are taken for; the largest in use have 300,000 tokens.
const MAX_WORDS: usize = 1 << 22;

/// What special tokens begin with among [`Tokenizer::words`].
pub const SPECIAL: u8 = 0xff;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: Map<String, Value>,
    ends: BTreeSet<u32>,
    detokenizer: Result<Detokenizer>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model from `tokenizer.json`, `tokenizer_config.json` and the
    /// configurations.
    ///
    /// # Errors
    /// If there is no `tokenizer.json`, or it is not one.
    pub fn read(facts: &Facts) -> Result<Tokenizer> {
        let path = facts.path("tokenizer.json");
        if !facts.has("tokenizer.json") {
            return Err(Error::new(Kind::InvalidModel, &facts.found.name, "no tokenizer.json"));
        }
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let ends = stated_ends(facts)?;
        let token = |key| Some((key, facts.tokenizer_config.get(key)?));
        let keys =
            ["bos_token", "eos_token", "pad_token", "unk_token", "additional_special_tokens"];
        Tokenizer::new(&bytes, keys.into_iter().filter_map(token), &ends).map_err(|mut e| {
            e.subject = path.display().to_string();
            e
        })
    }

    /// From the content of a `tokenizer.json`, the special tokens of `tokenizer_config.json` by
    /// name, and the tokens that end a text besides those that it names.
    pub fn new<'a>(
        json: &[u8],
        special: impl IntoIterator<Item = (&'a str, Value)>,
        ends: &[u32],
    ) -> Result<Tokenizer> {
        let mut inner = parsed(json).map_err(|e| invalid(format!("not a tokenizer: {e}")))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| invalid(e.to_string()))?;
        let decoder = serde_json::to_value(inner.get_decoder())
            .map_err(|e| invalid(format!("not a decoder: {e}")))?;
        let special: Map<String, Value> = special.into_iter().filter_map(named_token).collect();
        let ends = end_ids(&inner, special.get("eos_token"), ends);
        Ok(Tokenizer { detokenizer: Detokenizer::new(&decoder), inner, special, ends })
    }

    /// The tokens of `text`. Those that the tokenizer puts around every text are added, unless it
    /// begins with the first of them already.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let bos = self.special.get("bos_token").and_then(Value::as_str);
        let begun = bos.is_some_and(|bos| !bos.is_empty() && text.starts_with(bos));
        let encoding = self.inner.encode_fast(text, !begun);
        let encoding = encoding.map_err(|e| Error::new(Kind::Execution, "", e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A decoder for one text.
    ///
    /// # Errors
    /// If the tokenizer is not one of a model that writes text.
    pub fn detokenizer(&self) -> Result<Detokenizer> {
        self.detokenizer.clone()
    }

    /// The token `id` as it stands in the vocabulary; none if it is a special one, which is no
    /// part of a text, or not in it.
    pub fn text_token(&self, id: u32) -> Option<String> {
        let token = self.inner.id_to_token(id)?;
        let special = self.inner.get_added_vocabulary().is_special_token(&token);
        (!special).then_some(token)
    }

    /// What is told of the token `id`, with the texts of all tokens in it.
    pub fn told(&self, id: u32, logprobs: &Logprobs) -> Told {
        let likelihood =
            |id, logprob| Likelihood { id, text: self.alone(id), bytes: self.bytes(id), logprob };
        let top = logprobs.top.iter().map(|&(id, logprob)| likelihood(id, logprob));
        Told { own: likelihood(id, logprobs.own), top: top.collect(), of_text: false }
    }

    /// What a token adds to a text.
    fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        match (self.inner.get_added_vocabulary().is_special_token(&token), self.detokenizer()) {
            (false, Ok(detokenizer)) => detokenizer.bytes(&token),
            _ => token.into_bytes(),
        }
    }

    /// The text of a token within a text.
    fn alone(&self, id: u32) -> String {
        let Some(token) = self.inner.id_to_token(id) else { return String::new() };
        if self.inner.get_added_vocabulary().is_special_token(&token) {
            return token;
        }
        let Ok(mut detokenizer) = self.detokenizer() else { return token };
        // Before the first token of a text spaces are left out.
        let before = detokenizer.push("-").len();
        let text = detokenizer.push(&token) + &detokenizer.finish();
        text.get(1 - before..).unwrap_or_default().to_owned()
    }

    /// The token `id` if it is a special one, which is no part of a text.
    pub fn special_token(&self, id: u32) -> Option<String> {
        let token = self.inner.id_to_token(id)?;
        self.inner.get_added_vocabulary().is_special_token(&token).then_some(token)
    }

    /// The token that was added to the vocabulary as `text`, if one was.
    pub fn added(&self, text: &str) -> Option<u32> {
        self.inner.get_added_vocabulary().get_vocab().get(text).copied()
    }

    /// What each token stands for within a text, by id; special tokens have [`SPECIAL`] in front,
    /// which is in no text.
    ///
    /// # Errors
    /// As [`detokenizer`](Self::detokenizer).
    pub fn words(&self) -> Result<Vec<Vec<u8>>> {
        let detokenizer = self.detokenizer()?;
        let vocabulary = self.inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        if size > MAX_WORDS {
            return Err(invalid(format!("a token has the number {}", size - 1)));
        }
        let mut words = vec![Vec::new(); size];
        for (token, id) in vocabulary {
            words[id as usize] = match self.inner.get_added_vocabulary().is_special_token(&token) {
                true => [&[SPECIAL], token.as_bytes()].concat(),
                false => detokenizer.bytes(&token),
            };
        }
        Ok(words)
    }

    /// The tokens that open one of `pairs`, or begin to.
    pub fn openings(&self, pairs: &[Pair]) -> Vec<u32> {
        let added = self.inner.get_added_vocabulary().get_vocab().iter();
        let opens = |token: &str| pairs.iter().any(|(open, _)| open.starts_with(token));
        added.filter(|(token, _)| opens(token)).map(|(_, &id)| id).collect()
    }

    /// True for the tokens that end a text.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Whether both have the same tokens under the same numbers.
    pub fn same_tokens(&self, other: &Tokenizer) -> bool {
        self.inner.get_vocab(true) == other.inner.get_vocab(true)
    }

    /// The tokens that end a text.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.ends.iter().copied()
    }

    /// The special tokens by name (`bos_token`, ...), for templates.
    pub fn special(&self) -> &Map<String, Value> {
        &self.special
    }
}

/// What a `tokenizer.json` holds. Models of byte pairs are read by themselves: as a part of the whole
/// their words would be copied several times, which takes as long again.
fn parsed(json: &[u8]) -> tokenizers::Result<tokenizers::Tokenizer> {
    const NONE: &str = r#"{"type":"BPE","vocab":{},"merges":[]}"#;
    #[derive(Deserialize)]
    struct Model<'a> {
        r#type: Option<&'a str>,
    }
    let mut parts: BTreeMap<String, &RawValue> = serde_json::from_slice(json)?;
    let typed = |model: &&&RawValue| {
        serde_json::from_str::<Model>(model.get()).is_ok_and(|model| model.r#type == Some("BPE"))
    };
    let Some(&model) = parts.get("model").filter(typed) else {
        return tokenizers::Tokenizer::from_bytes(json);
    };
    let none = RawValue::from_string(NONE.to_owned())?;
    parts.insert("model".to_owned(), &none);
    let added = parts.remove("added_tokens");
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(serde_json::to_vec(&parts)?)?;
    tokenizer.with_model(serde_json::from_str::<BPE>(model.get())?);
    // They take the numbers that the model gives to their texts.
    if let Some(added) = added {
        tokenizer.add_tokens(serde_json::from_str::<Vec<AddedToken>>(added.get())?)?;
    }
    Ok(tokenizer)
}

/// A token's text, which may be wrapped in an object of its properties.
fn named_token((name, value): (&str, Value)) -> Option<(String, Value)> {
    let value = match value {
        Value::Null => return None,
        Value::Object(mut token) => token.remove("content")?,
        value => value,
    };
    Some((name.to_owned(), value))
}

/// The `eos_token_id` of the model, a number or a list, in the first file that has one.
fn stated_ends(facts: &Facts) -> Result<Vec<u32>> {
    let files =
        [("generation_config.json", &facts.generation_config), ("config.json", &facts.config)];
    let stated = files.into_iter().find_map(|(file, config)| {
        config.get("eos_token_id").filter(|ids| !ids.is_null()).map(|ids| (file, ids))
    });
    let Some((file, ids)) = stated else { return Ok(Vec::new()) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let list = match &ids {
        Value::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    list.ok_or_else(|| {
        let message = format!("`eos_token_id` is not a token or a list of tokens: {ids}");
        Error::new(Kind::InvalidModel, facts.path(file).display().to_string(), message)
    })
}

fn end_ids(
    inner: &tokenizers::Tokenizer,
    eos_token: Option<&Value>,
    stated: &[u32],
) -> BTreeSet<u32> {
    let special = |token: &&str| inner.get_added_vocabulary().is_special_token(token);
    let turns = END_OF_TURN.into_iter().filter(special);
    let named = turns.chain(eos_token.and_then(Value::as_str));
    let named = named.filter_map(|token| inner.token_to_id(token));
    stated.iter().copied().chain(named).collect()
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidModel, "tokenizer.json", message)
}
