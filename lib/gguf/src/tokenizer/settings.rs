//! Content of tokenizer_config.json, and token ids for generation_config.json.

use serde_json::{Value, json};

use super::vocabulary::Vocabulary;
use crate::read::Gguf;

/// Id and text of the token with a role such as `bos`; `None` if the file has none.
pub fn token<'g>(
    gguf: &Gguf,
    vocabulary: &Vocabulary<'g>,
    role: &str,
) -> Result<Option<(usize, &'g str)>, String> {
    let Some(id) = id(gguf, role)? else {
        return Ok(None);
    };
    Ok(Some((id, vocabulary.tokens[id])))
}

fn id(gguf: &Gguf, role: &str) -> Result<Option<usize>, String> {
    let key = format!("tokenizer.ggml.{role}_token_id");
    let tokens: &[&str] = gguf.need("tokenizer.ggml.tokens")?;
    match gguf.find(&key)? {
        Some(id) if id >= tokens.len() => {
            Err(format!("`{key}` is {id}, but there are {} tokens", tokens.len()))
        }
        id => Ok(id),
    }
}

/// BOS, EOS and padding token ids; EOS is a list if several tokens end a text.
pub fn ids(gguf: &Gguf) -> Result<Value, String> {
    let mut ids = json!({});
    for (key, role) in [("bos_token_id", "bos"), ("pad_token_id", "padding")] {
        if let Some(id) = id(gguf, role)? {
            ids[key] = id.into();
        }
    }
    let mut ends = Vec::new();
    for role in ["eos", "eot", "eom"] {
        ends.extend(id(gguf, role)?.filter(|id| !ends.contains(id)));
    }
    match ends[..] {
        [] => {}
        [one] => ids["eos_token_id"] = one.into(),
        _ => ids["eos_token_id"] = ends.into(),
    }
    Ok(ids)
}

/// Content of tokenizer_config.json for a model with a context of `context` tokens.
pub fn config(gguf: &Gguf, vocabulary: &Vocabulary, context: usize) -> Result<Value, String> {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "model_max_length": context,
    });
    for (key, role) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")] {
        if let Some((_, text)) = token(gguf, vocabulary, role)? {
            config[format!("{key}_token")] = text.into();
        }
    }
    for key in ["add_bos_token", "add_eos_token"] {
        if let Some(flag) = gguf.find::<bool>(&format!("tokenizer.ggml.{key}"))? {
            config[key] = flag.into();
        }
    }
    if let Some(template) = chat_template(gguf)? {
        config["chat_template"] = template;
    }
    Ok(config)
}

/// Chat template, or the list of named templates if there are others besides the default.
fn chat_template(gguf: &Gguf) -> Result<Option<Value>, String> {
    const KEY: &str = "tokenizer.chat_template";
    let default: Option<&str> = gguf.find(KEY)?;
    let named = gguf.metadata.keys().filter_map(|key| key.strip_prefix(KEY)?.strip_prefix('.'));
    let mut templates = Vec::new();
    for name in named {
        let template: &str = gguf.need(&format!("{KEY}.{name}"))?;
        templates.push(json!({ "name": name, "template": template }));
    }
    if templates.is_empty() {
        return Ok(default.map(Value::from));
    }
    let first = default.map(|text| json!({ "name": "default", "template": text }));
    Ok(Some(first.into_iter().chain(templates).collect()))
}
