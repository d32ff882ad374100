//! WordPiece, GGUF's `bert`: words are taken apart from the left, the longest token first.

use serde_json::{Map, Value, json};

use super::vocabulary::{Use, Vocabulary};
use super::{document, settings, template};
use crate::read::Gguf;

/// What GGUF puts before tokens that begin a word; Hugging Face marks the others instead.
const BEGINS: &str = "▁";

/// The longest word that is taken apart, in characters, as BERT has it.
const LONGEST: usize = 100;

/// The `tokenizer.json`.
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
            "max_input_chars_per_word": LONGEST,
            "vocab": words(vocabulary),
        },
    });
    Ok(document(vocabulary, parts))
}

fn words(vocabulary: &Vocabulary) -> Map<String, Value> {
    let word = |(id, token): (usize, &&str)| {
        let text = match (vocabulary.kind(id), token.strip_prefix(BEGINS)) {
            (Use::Normal, Some(word)) => word.to_owned(),
            (Use::Normal, None) => format!("##{token}"),
            _ => (*token).to_owned(),
        };
        (text, id.into())
    };
    vocabulary.tokens.iter().enumerate().map(word).collect()
}
