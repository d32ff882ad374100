//! SentencePiece BPE (`llama` in GGUF): merges from scores, with byte fallback.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::vocabulary::{TokenKind, Vocabulary};
use super::{bpe, document, settings, template};
use crate::read::Gguf;

/// Character that represents a space in tokens.
const SPACE: &str = "▁";

/// The tokenizer.json, as transformers' conversion of SentencePiece makes it.
pub fn tokenizer(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value, String> {
    let prefix = gguf.find("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    build(gguf, vocabulary, prefix, merges(gguf, vocabulary)?)
}

/// The tokenizer.json of `gemma4` in GGUF, which lists its merges and prepends no space to a text.
pub fn with_listed_merges(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value, String> {
    build(gguf, vocabulary, false, bpe::merges(gguf, vocabulary)?)
}

fn build(
    gguf: &Gguf,
    vocabulary: &Vocabulary,
    prefix: bool,
    merges: Vec<Value>,
) -> Result<Value, String> {
    let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    let mut normalizers = vec![replace(" ", SPACE)];
    let mut decoders =
        vec![replace(SPACE, " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
    if prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": SPACE }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let unknown = settings::token(gguf, vocabulary, "unknown")?.map(|(_, text)| text);
    let parts = json!({
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": template(gguf, vocabulary, true)?,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": true,
            "ignore_merges": false,
            "vocab": vocabulary.map(),
            "merges": merges,
        },
    });
    Ok(document(vocabulary, parts))
}

/// All pairs of tokens that join to a token, sorted by descending score of the result, then length
/// of the left and of the right token, then ids.
fn merges(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Vec<Value>, String> {
    let scores: &[f64] = gguf.need("tokenizer.ggml.scores")?;
    let tokens = vocabulary.tokens;
    if scores.len() != tokens.len() {
        return Err(format!("{} tokens, but {} scores", tokens.len(), scores.len()));
    }
    let id = |text: &str| {
        vocabulary.ids.get(text).copied().filter(|id| vocabulary.kind(*id) == TokenKind::Normal)
    };
    let mut merges = Vec::new();
    for (whole, token) in tokens.iter().enumerate().filter(|(_, token)| id(token).is_some()) {
        let halves = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut pairs: Vec<_> = halves
            .filter_map(|(left, right)| Some(((id(left)?, id(right)?), left, right)))
            .collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(_, left, right)| (scores[whole], left, right)));
    }
    let length = |text: &str| Reverse(text.chars().count());
    merges.sort_by(|a, b| {
        let rest = |m: &(f64, &str, &str)| (length(m.1), length(m.2));
        b.0.total_cmp(&a.0).then_with(|| rest(a).cmp(&rest(b)))
    });
    Ok(merges.into_iter().map(|(_, left, right)| json!([left, right])).collect())
}
