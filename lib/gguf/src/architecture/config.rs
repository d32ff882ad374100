//! Parts of config.json that several families share.

use serde_json::{Value, json};

use crate::model::Model;

/// Fields of `base` and `more`; where both have a field, the one of `more`.
pub fn extended(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}

/// Configuration of a multimodal model, of which the file holds the text part `text`.
pub fn nested(model_type: &str, mut text: Value) -> Value {
    let class = text["architectures"].take();
    if let Some(text) = text.as_object_mut() {
        text.remove("architectures");
    }
    let (tied, vocabulary) = (text["tie_word_embeddings"].clone(), text["vocab_size"].clone());
    json!({
        "architectures": class,
        "model_type": model_type,
        "tie_word_embeddings": tied,
        "vocab_size": vocabulary,
        "text_config": text,
    })
}

/// Attention kind of each layer: as in the metadata, or with full attention in every `period`th
/// layer.
pub fn layer_types(model: &Model, period: usize) -> Result<Vec<&'static str>, String> {
    let slides = match model.flags("attention.sliding_window_pattern")? {
        Some(slides) if slides.len() == model.layers => slides,
        _ => (1..=model.layers).map(|layer| layer % period != 0).collect(),
    };
    let kind = |slides| if slides { "sliding_attention" } else { "full_attention" };
    Ok(slides.into_iter().map(kind).collect())
}
