//! WordPiece (`bert` in GGUF): greedy longest-match tokens from the start of each word.

use serde_json::{Map, Value, json};

use super::vocabulary::{TokenKind, Vocabulary};
use super::{document, settings, template};
use crate::read::Gguf;

/// Prefix of word-initial tokens in GGUF; Hugging Face marks all other tokens instead, with `##`.
const WORD_START: &str = "▁";

/// Longest word that is tokenized, in characters; BERT's value.
const MAX_WORD: usize = 100;

/// The tokenizer.json of a WordPiece tokenizer.
pub fn tokenizer(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value, String> {
    let lowercase = gguf.find("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let unknown = settings::token(gguf, vocabulary, "unknown")?.map_or("[UNK]", |(_, text)| text);
    let parts = json!({
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": lowercase,
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": template(gguf, vocabulary, true)?,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": unknown,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_WORD,
            "vocab": words(vocabulary),
        },
    });
    Ok(document(vocabulary, parts))
}

fn words(vocabulary: &Vocabulary) -> Map<String, Value> {
    let word = |(id, token): (usize, &&str)| {
        let text = match (vocabulary.kind(id), token.strip_prefix(WORD_START)) {
            (TokenKind::Normal, Some(word)) => word.to_owned(),
            (TokenKind::Normal, None) => format!("##{token}"),
            _ => (*token).to_owned(),
        };
        (text, id.into())
    };
    vocabulary.tokens.iter().enumerate().map(word).collect()
}
