//! Language models of Mistral 3 and Pixtral: Llama, Ministral 3, which scales queries by position,
//! or Mistral 4.

use mlxk_core::{Architecture, Result};
use mlxk_tensor::ops::moe_route::Score;
use serde_json::{Value, json};

use super::decoder::Decoder;
use super::deepseek::{self, Member};
use super::llama;
use crate::checkpoint::config_error::{invalid, unknown};
use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::mla;
use crate::checkpoint::text_part;
use crate::config::{Config, given};
use crate::language::Language;
use crate::nn::attention::TemperatureTuning;
use crate::spec::Spec;

/// Architectures of the family.
pub const SPECS: &[Spec] = &[
    Spec::new(Architecture::Ministral3, load_mini_3),
    Spec {
        sanitize: &[text_part::under_language_model, mla::split],
        ..Spec::new(Architecture::Mistral3, load_3)
    },
    Spec { sanitize: &[mla::split], ..Spec::new(Architecture::Mistral4, load_4) },
    Spec {
        sanitize: &[text_part::under_language_model],
        ..Spec::new(Architecture::Pixtral, load_3)
    },
];

/// Loads the language model of a `mistral3`, `llava` or `pixtral`, whose config.json omits fields
/// with default values.
fn load_3(config: &Value, mut w: Cursor) -> Result<Box<dyn Language>> {
    text_part::text_only(&mut w);
    let text = given(&text_part::text(config)?, json!({"tie_word_embeddings": false}));
    let usual = json!({"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "rms_norm_eps": 1e-6, "vocab_size": 32_000});
    match text.get("model_type").and_then(Value::as_str) {
        Some("ministral3") => load_mini_3(&text, w),
        None | Some("mistral") => {
            let own = json!({"intermediate_size": 14_336, "num_key_value_heads": 8});
            llama::load_mistral(&given(&given(&text, own), usual), w)
        }
        Some("llama") => {
            let own = json!({"intermediate_size": 11_008});
            llama::load(&given(&given(&text, own), usual), w)
        }
        Some("mistral4") => load_4(&text, w),
        Some(other) => Err(unknown(format!("text models of type `{other}` cannot run here"))),
    }
}

/// Loads a `ministral3`.
fn load_mini_3(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = Config::read(config)?;
    let mut arch = llama::arch(&c, None, false)?;
    arch.heads.temperature_tuning = Some(temperature_tuning(&c)?);
    Decoder::load(arch, w)
}

/// Loads a `mistral4`: a `deepseek_v3` with a softmax router and queries scaled by position.
fn load_4(config: &Value, w: Cursor) -> Result<Box<dyn Language>> {
    let c = deepseek::read(config, true)?;
    let moe = deepseek::mixture(&c, Score::Softmax, 2)?;
    let traditional = c.get("rope_interleave")?.unwrap_or(true);
    let temperature_tuning = Some(temperature_tuning(&c)?);
    deepseek::load(&c, Member { traditional, temperature_tuning, ..Member::new(moe) }, w)
}

/// Scaling of queries by position. Errors if config.json does not state it.
fn temperature_tuning(c: &Config) -> Result<TemperatureTuning> {
    let rope = c.rope_parameters.as_ref();
    let beta = rope.and_then(|rope| rope.llama_4_scaling_beta);
    let trained = rope.and_then(|rope| rope.original_max_position_embeddings);
    let (Some(beta), Some(trained)) = (beta, trained) else {
        let fields = "`llama_4_scaling_beta` and `original_max_position_embeddings`";
        return Err(invalid(format!("`rope_parameters` lacks {fields}")));
    };
    Ok(TemperatureTuning { beta: beta as f32, shift: 0, trained: trained as f32 })
}
