//! Qwen3-ASR (arXiv 2601.21337): the language model of Qwen3 with a tower for audio.

use mlxk_core::{Architecture, Result};
use serde_json::{Value, json};

use super::Speech;
use super::chat::{Chat, ChatForm};
use crate::audio::qwen_tower::QwenTower;
use crate::checkpoint::config_error::{fields, invalid};
use crate::checkpoint::cursor::Cursor;
use crate::config::given;
use crate::spec::Spec;
use crate::text::qwen;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[Spec::speech(Architecture::Qwen3Asr, load)];

/// Languages of the family: the code, and the name in prompts and answers.
const LANGUAGES: [(&str, &str); 30] = [
    ("zh", "Chinese"),
    ("en", "English"),
    ("yue", "Cantonese"),
    ("ar", "Arabic"),
    ("de", "German"),
    ("fr", "French"),
    ("es", "Spanish"),
    ("pt", "Portuguese"),
    ("id", "Indonesian"),
    ("it", "Italian"),
    ("ko", "Korean"),
    ("ru", "Russian"),
    ("th", "Thai"),
    ("vi", "Vietnamese"),
    ("ja", "Japanese"),
    ("tr", "Turkish"),
    ("hi", "Hindi"),
    ("ms", "Malay"),
    ("nl", "Dutch"),
    ("sv", "Swedish"),
    ("da", "Danish"),
    ("fi", "Finnish"),
    ("pl", "Polish"),
    ("cs", "Czech"),
    ("tl", "Filipino"),
    ("fa", "Persian"),
    ("el", "Greek"),
    ("ro", "Romanian"),
    ("hu", "Hungarian"),
    ("mk", "Macedonian"),
];

/// Loads the language model, and the tower beside it.
fn load(config: &Value, mut w: Cursor) -> Result<Speech> {
    let all = config.get("thinker_config").unwrap_or(config);
    let audio = all.get("audio_config").ok_or_else(|| missing("audio_config"))?;
    let text = all.get("text_config").ok_or_else(|| missing("text_config"))?;
    let text = given(text, json!({ "rope_theta": 1_000_000.0, "tie_word_embeddings": true }));
    let hidden = fields::<usize>(text.get("hidden_size").unwrap_or(&Value::Null))?;
    let audio_token = all.get("audio_token_id").and_then(Value::as_u64);
    let audio_token = audio_token.and_then(|id| u32::try_from(id).ok());
    if text.get("tie_word_embeddings") == Some(&Value::Bool(true)) {
        w.discard(|name| name.ends_with("lm_head.weight"));
    }
    // transformers has all below `thinker`.
    let mut w = match w.at("thinker.model.embed_tokens").has("weight") {
        true => w.at("thinker"),
        false => w,
    };
    let tower = QwenTower::load(audio, &mut w.at("audio_tower"), hidden)?;
    let form = ChatForm {
        start: "<|im_start|>system\n",
        middle: "<|im_end|>\n<|im_start|>user\n<|audio_start|>",
        audio: audio_token.ok_or_else(|| missing("audio_token_id"))?,
        end: "<|audio_end|><|im_end|>\n<|im_start|>assistant\n",
        language: ["language ", "<asr_text>"],
        languages: languages(config),
    };
    let language = qwen::load_3(&text, w)?;
    Ok(Speech::Chat(Chat { tower: Box::new(tower), language, form }))
}

/// Languages that config.json names; all of the family if it names none.
fn languages(config: &Value) -> Vec<(&'static str, &'static str)> {
    let named = config.get("support_languages").and_then(Value::as_array);
    let stated = |name: &str| {
        named.is_none_or(|named| named.iter().any(|language| language.as_str() == Some(name)))
    };
    LANGUAGES.into_iter().filter(|(_, name)| stated(name)).collect()
}

fn missing(field: &str) -> mlxk_core::Error {
    invalid(format!("missing field `thinker_config.{field}`"))
}
