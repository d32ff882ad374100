//! Text part of a model that also takes images or audio.

use mlxk_core::Result;
use serde_json::Value;

use super::config_error::invalid;
use super::cursor::Cursor;
use super::formats::Checkpoint;

/// Name parts of tensors of other modalities.
pub const SENSES: [&str; 12] = [
    "vision_tower.",
    "vision_embedder.",
    "visual.",
    "vision_model.",
    "multi_modal_projector.",
    "mm_projector.",
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
    "connector.",
    "image_newline",
    "mlp1.",
];

/// Renames tensors from transformers' names to MLX's: those of the language model go below
/// `language_model.`, and those of other modalities lose the leading `model.`.
pub fn under_language_model(all: &mut Checkpoint) -> Result<()> {
    all.rename(nested);
    Ok(())
}

/// Name in MLX checkpoints of the tensor `name`; `None` if it is the same.
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

/// Leaves the weights of other modalities, and maps the names of the rest: as MLX checkpoints have
/// them, or as transformers has them.
pub fn text_only(w: &mut Cursor) {
    w.leave(|name| SENSES.iter().any(|part| name.contains(part)));
    if w.has("model.language_model.embed_tokens.weight") {
        w.rename(&[("model", "model.language_model")]);
    } else if w.has("language_model.model.embed_tokens.weight") {
        let head = ("lm_head", "language_model.lm_head");
        w.rename(&[("model", "language_model.model"), head]);
    } else if w.has("language_model.embed_tokens.weight") {
        w.rename(&[("model", "language_model"), ("lm_head", "language_model.lm_head")]);
    }
}

/// Text configuration, `text_config` of config.json. Errors if it is absent.
pub fn text(config: &Value) -> Result<Value> {
    match config.get("text_config") {
        Some(text @ Value::Object(_)) => Ok(text.clone()),
        _ => Err(invalid("missing field `text_config`".into())),
    }
}

/// Text configuration, `text_config`; all of config.json if that is absent.
pub fn text_or_all(config: &Value) -> &Value {
    config.get("text_config").unwrap_or(config)
}
