//! Tokenizer: text to token ids, and the special tokens of a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use mlxk_core::{Error, Facts, Kind, Result, generation_config};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::{AddedToken, PostProcessor, TruncationParams, truncate_encodings};

use super::detokenizer::Detokenizer;
use super::pieces::{Cut, cut};

/// Tokens that end a turn and have no other use. Some checkpoints state only the end of the
/// document, and would go on with the user's turn.
const END_OF_TURN: [&str; 7] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<turn|>",
    "<|return|>",
    "<|call|>",
];

/// Largest vocabulary for grammars, in tokens; the largest in use have 300,000.
const MAX_WORDS: usize = 1 << 22;

/// First byte of special tokens in [`Tokenizer::words`].
pub const SPECIAL: u8 = 0xff;

/// Tokenizer of a model.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: Map<String, Value>,
    ends: BTreeSet<u32>,
    detokenizer: Result<Detokenizer>,
    /// Size of the longest token in bytes of text, once it is needed.
    longest: OnceLock<usize>,
}

/// Tokens of a pair of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Tokens, special ones included.
    pub ids: Vec<u32>,
    /// Type of each token: 0 or 1.
    pub types: Vec<u32>,
    /// True if tokens of a text were cut off.
    pub truncated: bool,
}

impl Tokenizer {
    /// Reads the tokenizer of a model from `tokenizer.json`, `tokenizer_config.json` and the
    /// configurations.
    ///
    /// # Errors
    /// [`Kind::InvalidModel`] if `tokenizer.json` is missing or malformed.
    pub fn read(facts: &Facts) -> Result<Tokenizer> {
        let Some(file) = facts.tokenizer() else {
            return Err(Error::new(Kind::InvalidModel, &facts.found.name, "no tokenizer.json"));
        };
        let path = facts.path(&file.path);
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let ends = generation_config::end_tokens(facts).map_err(|(file, reason)| {
            Error::invalid_model(facts.path(file).display().to_string(), reason)
        })?;
        let token = |key| Some((key, facts.tokenizer_config.get(key)?));
        let keys =
            ["bos_token", "eos_token", "pad_token", "unk_token", "additional_special_tokens"];
        Tokenizer::new(&bytes, keys.into_iter().filter_map(token), &ends).map_err(|mut e| {
            e.subject = path.display().to_string();
            e
        })
    }

    /// Tokenizer from the content of a `tokenizer.json`, the special tokens of
    /// `tokenizer_config.json` by name, and further ids of tokens that end a text.
    ///
    /// # Errors
    /// [`Kind::InvalidModel`] if the content is malformed.
    pub fn new<'a>(
        json: &[u8],
        special: impl IntoIterator<Item = (&'a str, Value)>,
        ends: &[u32],
    ) -> Result<Tokenizer> {
        let mut inner = parsed(json).map_err(|e| invalid(format!("not a tokenizer: {e}")))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| invalid(e.to_string()))?;
        let special: Map<String, Value> = special.into_iter().filter_map(named_token).collect();
        let ends = end_ids(&inner, special.get("eos_token"), ends);
        Ok(Tokenizer { special, ends, ..Tokenizer::of(inner)? })
    }

    /// Tokenizer without special tokens of a template, and without such that end a text.
    ///
    /// # Errors
    /// [`Kind::InvalidModel`] if its decoder is malformed.
    pub(super) fn of(inner: tokenizers::Tokenizer) -> Result<Tokenizer> {
        let decoder = serde_json::to_value(inner.get_decoder())
            .map_err(|e| invalid(format!("not a decoder: {e}")))?;
        let (detokenizer, longest) = (Detokenizer::new(&decoder), OnceLock::new());
        let (special, ends) = (Map::new(), BTreeSet::new());
        Ok(Tokenizer { detokenizer, inner, special, ends, longest })
    }

    /// Token ids of a text, with the special tokens that the tokenizer adds to every text, unless
    /// the text starts with the first of them.
    ///
    /// # Errors
    /// [`Kind::Execution`] if the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_up_to(text, usize::MAX, &|| false)?.unwrap_or_default())
    }

    /// Token ids of a text as [`Tokenizer::encode`] gives them; none if the text is found to have
    /// more than `limit` before all of it is read. A text that is too long by its bytes is not read
    /// at all, and a long one in pieces, until `gone` is true.
    ///
    /// # Errors
    /// [`Kind::Execution`] if the tokenizer fails, or `gone` is true.
    pub fn encode_up_to(
        &self,
        text: &str,
        limit: usize,
        gone: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<u32>>> {
        let bos = self.special.get("bos_token").and_then(Value::as_str);
        let begun = bos.is_some_and(|bos| !bos.is_empty() && text.starts_with(bos));
        let (mut ids, mut last, mut rest) = (Vec::new(), Vec::new(), text);
        loop {
            // No token is shorter than a byte, so most texts need no look at the vocabulary.
            let least = if rest.len() > limit { rest.len() / self.longest() } else { 0 };
            if ids.len().saturating_add(least) > limit {
                return Ok(None);
            }
            if gone() {
                return Err(Error::new(Kind::Execution, "", "nobody waits for the tokens"));
            }
            let Cut { end, next } = cut(rest, |part| self.encode_part(part))?;
            let (piece, is_first) = (&rest[..end], rest.len() == text.len());
            rest = &rest[next..];
            let encoding = self.inner.encode_fast(piece, is_first && !begun).map_err(failed)?;
            let mut found = encoding.get_ids().to_vec();
            if is_first && !rest.is_empty() {
                let added = encoding.get_special_tokens_mask().iter().rev();
                let kept = found.len() - added.take_while(|&&added| added == 1).count();
                last = found.split_off(kept);
            }
            ids.extend(found);
            if rest.is_empty() {
                ids.extend(last);
                return Ok(Some(ids));
            }
        }
    }

    /// Size of the longest token, in bytes of text.
    fn longest(&self) -> usize {
        *self.longest.get_or_init(|| {
            let longest = self.words().ok().and_then(|words| words.iter().map(Vec::len).max());
            longest.map_or(usize::MAX, |longest| longest.max(1))
        })
    }

    /// The first `limit` tokens of `text`, those that the tokenizer puts around every text
    /// included if `special`; true if tokens of the text were cut off for it. Of a long text only
    /// its beginning is read.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_within(
        &self,
        text: &str,
        limit: usize,
        special: bool,
    ) -> Result<(Vec<u32>, bool)> {
        /// Bytes of text for each token that may come, at first.
        const BYTES: usize = 16;
        /// Tokens at the end of a part that may be others in the whole text.
        const UNSURE: usize = 64;
        let mut bytes = limit.max(UNSURE).saturating_mul(BYTES);
        loop {
            let part = beginning(text, bytes);
            let encoding = self.inner.encode_fast(part, special).map_err(failed)?;
            let ids = encoding.get_ids();
            if part.len() == text.len() && ids.len() <= limit {
                return Ok((ids.to_vec(), false));
            }
            if part.len() == text.len() || ids.len() > limit.saturating_add(UNSURE) {
                let added = encoding.get_special_tokens_mask().iter().rev();
                let ends = added.take_while(|&&added| added == 1).count().min(limit);
                return Ok(([&ids[..limit - ends], &ids[ids.len() - ends..]].concat(), true));
            }
            bytes = bytes.saturating_mul(8);
        }
    }

    /// Tokens of two texts as a pair, at most `limit`, those that the tokenizer puts around them
    /// included, the type of each, and true if tokens were cut off: the last ones of the longer
    /// text, until both are of one length, then of both by turns.
    ///
    /// # Errors
    /// If `limit` has no room for the tokens that are added, or the tokenizer fails.
    pub fn encode_pair(&self, texts: [&str; 2], limit: usize) -> Result<Pair> {
        let part = |text: &str| self.inner.encode_fast(text, false).map_err(failed);
        let [first, second] = [part(texts[0])?, part(texts[1])?];
        let added = self.inner.get_post_processor().map_or(0, |added| added.added_tokens(true));
        let room = limit.checked_sub(added).ok_or_else(|| {
            Error::validation(format!("{limit} tokens have no room for those around a pair"))
        })?;
        let truncated = first.get_ids().len() + second.get_ids().len() > room;
        let cut = TruncationParams { max_length: room, ..TruncationParams::default() };
        let (first, second) = truncate_encodings(first, Some(second), &cut).map_err(failed)?;
        let pair = self.inner.post_process(first, second, true).map_err(failed)?;
        Ok(Pair { ids: pair.get_ids().to_vec(), types: pair.get_type_ids().to_vec(), truncated })
    }

    /// Token ids of a part of a text, without special tokens.
    ///
    /// # Errors
    /// [`Kind::Execution`] if the tokenizer fails.
    pub fn encode_part(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, false).map_err(failed)?.get_ids().to_vec())
    }

    /// Detokenizer for one text.
    ///
    /// # Errors
    /// If the tokenizer belongs to no model that generates text.
    pub fn detokenizer(&self) -> Result<Detokenizer> {
        self.detokenizer.clone()
    }

    /// Entry of a token in the vocabulary; none for a special token, which is not part of a text,
    /// and for an unknown id.
    pub fn text_token(&self, id: u32) -> Option<String> {
        let token = self.inner.id_to_token(id)?;
        let special = self.inner.get_added_vocabulary().is_special_token(&token);
        (!special).then_some(token)
    }

    /// Bytes that a token adds to a text.
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        match (self.inner.get_added_vocabulary().is_special_token(&token), self.detokenizer()) {
            (false, Ok(detokenizer)) => detokenizer.bytes(&token),
            _ => token.into_bytes(),
        }
    }

    /// Text of a token in the middle of a text.
    pub fn alone(&self, id: u32) -> String {
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

    /// Entry of a token in the vocabulary, special or not; none if there is no such token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Id of the token that stands for what the vocabulary lacks, if there is one. `facts` are those
    /// of the tokenizer's model.
    pub fn unknown(&self, facts: &Facts) -> Option<u32> {
        let unknown = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
            ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
            ModelWrapper::BPE(model) => model.unk_token.clone(),
            ModelWrapper::Unigram(_) => return unknown_of_unigram(facts),
        };
        self.inner.token_to_id(&unknown?)
    }

    /// Id of the entry `token` of the vocabulary, special or not.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Entry of a special token in the vocabulary; none for other tokens.
    pub fn special_token(&self, id: u32) -> Option<String> {
        let token = self.inner.id_to_token(id)?;
        self.inner.get_added_vocabulary().is_special_token(&token).then_some(token)
    }

    /// Id of an added token by its text.
    pub fn added(&self, text: &str) -> Option<u32> {
        self.inner.get_added_vocabulary().get_vocab().get(text).copied()
    }

    /// Bytes of all tokens within a text, by id; those of special tokens have the byte 0xff in
    /// front, which occurs in no text.
    ///
    /// # Errors
    /// If the tokenizer belongs to no model that generates text, or its ids are too large.
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

    /// Added tokens with which the first marker of one of `pairs` begins.
    pub fn openings(&self, pairs: &[(&str, &str)]) -> Vec<u32> {
        let added = self.inner.get_added_vocabulary().get_vocab().iter();
        let opens = |token: &str| pairs.iter().any(|(open, _)| open.starts_with(token));
        added.filter(|(token, _)| opens(token)).map(|(_, &id)| id).collect()
    }

    /// True if a token ends a text.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// True if both tokenizers have the same tokens with the same ids.
    pub fn same_tokens(&self, other: &Tokenizer) -> bool {
        self.inner.get_vocab(true) == other.inner.get_vocab(true)
    }

    /// Ids of the tokens that end a text.
    pub fn ends(&self) -> impl Iterator<Item = u32> {
        self.ends.iter().copied()
    }

    /// Special tokens by name (`bos_token`, ...), for chat templates.
    pub fn special(&self) -> &Map<String, Value> {
        &self.special
    }
}

/// Parses a `tokenizer.json`. A BPE model is parsed separately: as part of the whole document, its
/// vocabulary would be copied several times, which doubles the time.
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
    // Added tokens take the ids that the model gives to their texts.
    if let Some(added) = added {
        tokenizer.add_tokens(serde_json::from_str::<Vec<AddedToken>>(added.get())?)?;
    }
    Ok(tokenizer)
}

/// `unk_id` of a Unigram model, which the parsed one does not give away.
fn unknown_of_unigram(facts: &Facts) -> Option<u32> {
    #[derive(Deserialize)]
    struct Stated {
        model: Unigram,
    }
    #[derive(Deserialize)]
    struct Unigram {
        unk_id: Option<u32>,
    }
    let json = std::fs::read(facts.path(&facts.tokenizer()?.path)).ok()?;
    serde_json::from_slice::<Stated>(&json).ok()?.model.unk_id
}

/// The beginning of `text`, at most `bytes` long: up to a space if it has one.
fn beginning(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    match text[..end].rfind(char::is_whitespace) {
        Some(space) if space > 0 => &text[..space],
        _ => &text[..end],
    }
}

/// Name and text of a special token, whose text may be the `content` of an object.
fn named_token((name, value): (&str, Value)) -> Option<(String, Value)> {
    let value = match value {
        Value::Null => return None,
        Value::Object(mut token) => token.remove("content")?,
        value => value,
    };
    Some((name.to_owned(), value))
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

fn failed(e: tokenizers::Error) -> Error {
    Error::new(Kind::Execution, "", e.to_string())
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidModel, "tokenizer.json", message)
}
