//! Language models of multimodal models that come with one of several text architectures, named by the
//! `model_type` of `text_config`.

use mlxk_core::{Architecture, Result};
use serde_json::{Value, json};

use super::{gemma, internlm, llama, mistral, phi, qwen, smollm};
use crate::checkpoint::config_error::unknown;
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::{Checkpoint, mla};
use crate::checkpoint::text_part;
use crate::config::{given, renamed};
use crate::language::Language;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec { sanitize: &[sanitize_idefics3], ..Spec::new(Architecture::Idefics3, load_llama) },
    Spec::new(Architecture::InternVlChat, load_internvl),
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::Llava, load_llama)
    },
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::LlavaNext, load_llama)
    },
    Spec {
        sanitize: &[text_part::under_language_model, mla::split],
        ..Spec::new(Architecture::Mistral3, load_mistral)
    },
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::Pixtral, load_mistral)
    },
];

/// Loader of a language model.
type Load = fn(&Value, Cursor) -> Result<Box<dyn Language>>;

/// Text architectures by `model_type`: the loader, and the intermediate size and the number of heads of
/// keys in the models that do not state theirs; 0 if they must.
const TEXTS: &[(&str, Load, [usize; 2])] = &[
    ("gemma", gemma::load, [0, 0]),
    ("gemma2", gemma::load_2, [0, 0]),
    ("internlm2", internlm::load_2, [0, 0]),
    ("llama", llama::load, [11_008, 0]),
    ("ministral3", mistral::load_mini_3, [0, 0]),
    ("mistral", llama::load_mistral, [14_336, 8]),
    ("mistral4", mistral::load_4, [0, 0]),
    ("phi3", phi::load_3, [0, 0]),
    ("qwen2", qwen::load_2, [22_016, 0]),
    ("qwen3", qwen::load_3, [0, 0]),
    ("smollm3", smollm::load, [0, 0]),
];

/// Loads the language model of a checkpoint whose text is a `llama` if it does not say otherwise.
fn load_llama(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    load(config, "llama", w)
}

/// Loads the language model of a checkpoint whose text is a `mistral` if it does not say otherwise.
fn load_mistral(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    load(config, "mistral", w)
}

/// Loads the language model of an `internvl_chat`, whose configuration is `llm_config` in its original
/// form.
fn load_internvl(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    load(&renamed(config, &[("llm_config", "text_config")]), "qwen2", w)
}

/// Loads the language model, of type `usual` if `text_config` states none; skips the vision tower.
fn load(config: &Value, usual: &str, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    let text = text_part::text(config)?;
    let kind = text.get("model_type").and_then(Value::as_str).unwrap_or(usual);
    let known = TEXTS.iter().find(|(name, ..)| *name == kind);
    let Some((_, load, [inner, kv_heads])) = known else {
        return Err(unknown(format!("text models of type `{kind}` cannot run here")));
    };
    let tied = config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false);
    let mut text = given(&text, json!({"tie_word_embeddings": tied}));
    if *inner > 0 {
        let defaults = json!({"hidden_size": 4096, "num_hidden_layers": 32, "rms_norm_eps": 1e-6,
            "num_attention_heads": 32, "vocab_size": 32_000, "intermediate_size": inner});
        text = given(&text, defaults);
    }
    if *kv_heads > 0 {
        text = given(&text, json!({"num_key_value_heads": kv_heads}));
    }
    load(&text, w)
}

/// Renames the tensors of an `idefics3` from transformers' names to MLX's.
fn sanitize_idefics3(all: &mut Checkpoint) -> Result<()> {
    const NAMES: [(&str, &str); 4] = [
        ("model.text_model.", "language_model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_model.", "vision_model."),
        ("model.connector.", "connector."),
    ];
    all.rename(|name| {
        let moved =
            |(theirs, ours): &(&str, &str)| Some(format!("{ours}{}", name.strip_prefix(theirs)?));
        NAMES.iter().find_map(moved)
    });
    Ok(())
}
