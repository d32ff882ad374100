//! The tokenizer, rebuilt from the metadata in the form of Hugging Face's `tokenizer.json`.

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

/// `tokenizer.json` and `tokenizer_config.json`.
pub fn files(gguf: &Gguf, model: &Model) -> Result<Vec<(&'static str, Value)>, String> {
    let vocabulary = Vocabulary::read(gguf)?;
    let rows = model.vocabulary;
    if vocabulary.tokens.len() > rows {
        let tokens = vocabulary.tokens.len();
        return Err(format!("{tokens} tokens for {rows} rows of the embedding"));
    }
    let tokenizer = rebuilt(gguf, &vocabulary)?;
    let settings = settings::config(gguf, &vocabulary, model.context)?;
    Ok(vec![("tokenizer.json", tokenizer), ("tokenizer_config.json", settings)])
}

/// The `tokenizer.json`.
///
/// # Errors
/// If the file names a kind of tokenizer or a splitting of words that is not known, or its lists
/// contradict each other.
pub fn tokenizer(gguf: &Gguf) -> Result<Value, String> {
    rebuilt(gguf, &Vocabulary::read(gguf)?)
}

fn rebuilt(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Value, String> {
    match gguf.need("tokenizer.ggml.model")? {
        "gpt2" => bpe::tokenizer(gguf, vocabulary),
        "llama" => spm::tokenizer(gguf, vocabulary),
        "gemma4" => spm::listed(gguf, vocabulary),
        "bert" => wordpiece::tokenizer(gguf, vocabulary),
        other => Err(format!(
            "the tokenizer {other:?} cannot be imported; gpt2, llama, gemma4 and bert can"
        )),
    }
}

/// What goes around a text: the beginning and end tokens that the file asks for. `None` if none.
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

/// The frame that both kinds of tokenizer share.
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
