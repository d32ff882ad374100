//! Reconstruction of Hugging Face's tokenizer files from the metadata.

mod bpe;
mod settings;
mod spm;
mod vocabulary;
mod wordpiece;

use serde_json::{Value, json};

pub use settings::ids;

use crate::model::Model;
use crate::read::Gguf;
use vocabulary::Vocabulary;

/// Names and contents of tokenizer.json and tokenizer_config.json.
///
/// # Errors
/// Errors of [`tokenizer`], and if there are more tokens than rows of the embedding.
pub fn files(gguf: &Gguf, model: &Model) -> Result<Vec<(&'static str, Value)>, String> {
    let vocabulary = Vocabulary::read(gguf)?;
    let rows = model.vocabulary;
    if vocabulary.tokens.len() > rows {
        let tokens = vocabulary.tokens.len();
        return Err(format!("{tokens} tokens for {rows} rows of the embedding"));
    }
    let tokenizer = build(gguf, &vocabulary)?;
    let settings = settings::config(gguf, &vocabulary, model.context)?;
    Ok(vec![("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)])
}

/// Content of tokenizer.json.
///
/// # Errors
/// A phrase, if the tokenizer model or pre-tokenizer is unknown, or the lists contradict each
/// other.
pub fn tokenizer(gguf: &Gguf) -> Result<Value, String> {
    build(gguf, &Vocabulary::read(gguf)?)
}

fn build(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value, String> {
    match gguf.need("tokenizer.ggml.model")? {
        "gpt2" if bpe::is_spaced(gguf)? => spm::with_listed_merges(gguf, vocabulary),
        "gpt2" => bpe::tokenizer(gguf, vocabulary),
        "llama" => spm::tokenizer(gguf, vocabulary),
        "gemma4" => spm::with_listed_merges(gguf, vocabulary),
        "bert" => wordpiece::tokenizer(gguf, vocabulary),
        other => Err(format!(
            "the tokenizer {other:?} cannot be imported; gpt2, llama, gemma4 and bert can"
        )),
    }
}

/// Post-processor that adds the BOS and EOS tokens that the file asks for; `None` without either.
fn template(gguf: &Gguf, vocabulary: &Vocabulary, bos: bool) -> Result<Option<Value>, String> {
    let wants = |flag, default| Ok::<_, String>(gguf.find(flag)?.unwrap_or(default));
    let special = |wanted: bool, name| match wanted {
        true => settings::token(gguf, vocabulary, name),
        false => Ok(None),
    };
    let bos = special(wants("tokenizer.ggml.add_bos_token", bos)?, "bos")?;
    let eos = special(wants("tokenizer.ggml.add_eos_token", false)?, "eos")?;
    if bos.is_none() && eos.is_none() {
        return Ok(None);
    }
    let around = |sequence: &str, kind: u8| -> Vec<Value> {
        let mark = |token: &Option<(usize, &str)>| {
            token.map(|(_, text)| json!({ "SpecialToken": { "id": text, "type_id": kind } }))
        };
        let text = json!({ "Sequence": { "id": sequence, "type_id": kind } });
        [mark(&bos), Some(text), mark(&eos)].into_iter().flatten().collect()
    };
    let mut tokens = json!({});
    for (id, text) in [bos, eos].into_iter().flatten() {
        tokens[text] = json!({ "id": text, "ids": [id], "tokens": [text] });
    }
    let pair = [around("A", 0), around("B", 1)].concat();
    Ok(Some(json!({
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": pair,
        "special_tokens": tokens,
    })))
}

/// Complete tokenizer.json with `parts` and the added tokens.
fn document(vocabulary: &Vocabulary, parts: Value) -> Value {
    let mut document = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": vocabulary.added(),
    });
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model"] {
        document[part] = parts[part].clone();
    }
    document
}
