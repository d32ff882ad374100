//! The text part of a model that also takes pictures or sound.

use mlxk_core::Result;
use serde_json::Value;

use super::config_error::invalid;
use super::cursor::Cursor;
use super::formats::Checkpoint;

/// Parts of names of tensors that text has no use for.
pub const SENSES: [&str; 9] = [
    "vision_tower.",
    "vision_embedder.",
    "visual.",
    "vision_model.",
    "multi_modal_projector.",
    "mm_projector.",
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
];

/// Renames the tensors of transformers as MLX has them: the language model lies under
/// `language_model.`, weights of other senses beside it, without a `model.` before them.
pub fn under_language_model(all: &mut Checkpoint) -> Result<()> {
    all.rename(nested);
    Ok(())
}

fn nested(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("model.language_model.") {
        return Some(format!("language_model.model.{rest}"));
    }
    if name.starts_with("language_model.") {
        return None;
    }
    match SENSES.iter().any(|sense| name.contains(sense)) {
        true => name.strip_prefix("model.").map(str::to_owned),
        false => Some(format!("language_model.{name}")),
    }
}

/// Leaves the weights of other senses aside, and finds the names under which the rest lies: as MLX
/// has them, or as transformers does.
pub fn text_only(w: &mut Cursor) {
    w.leave(|name| SENSES.iter().any(|part| name.contains(part)));
    if w.has("model.language_model.embed_tokens.weight") {
        w.rename(&[("model", "model.language_model")]);
    } else if w.has("language_model.model.embed_tokens.weight") {
        let head = ("lm_head", "language_model.lm_head");
        w.rename(&[("model", "language_model.model"), head]);
    }
}

/// What config.json says about the text part.
pub fn text(config: &Value) -> Result<Value> {
    match config.get("text_config") {
        Some(text @ Value::Object(_)) => Ok(text.clone()),
        _ => Err(invalid("missing field `text_config`".into())),
    }
}

/// The same where a file may be flat: then all of it is about the text part.
pub fn text_or_all(config: &Value) -> &Value {
    config.get("text_config").unwrap_or(config)
}
