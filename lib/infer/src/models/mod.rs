//! The models that can run: a file for each family, an entry for each `model_type`.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_core::Architecture;
use serde_json::Value;

use crate::cache::{Cache, Texts};
use crate::weights::Cursor;

mod afmoe;
mod altup;
mod bailing;
mod bitnet;
mod cohere;
pub mod config;
mod decoder;
mod deepseek;
mod deepseek_v41;
mod ends;
mod ernie;
mod exaone;
mod falcon_h;
mod gemma;
mod gemma3n;
mod gemma4;
mod glm;
mod gpt;
mod gpt_oss;
mod granite;
mod granite_hybrid;
mod hunyuan;
mod internlm;
mod jamba;
mod kimi;
mod laguna;
mod lfm;
mod llama;
mod llama4;
mod mamba;
mod mimo;
mod mistral;
mod mixtral;
mod nanochat;
mod nemotron_h;
mod olmo;
mod per_layer;
mod phi;
mod qwen;
mod qwen_next;
mod recall;
mod smollm;
mod stack;
mod within;

/// A model of language, in the three steps that text, pictures and embeddings share.
pub trait Language {
    /// How many tokens it knows; ids are below this.
    fn vocabulary(&self) -> usize;
    /// A memory of one text, without any token.
    fn cache(&self) -> Cache;
    /// The vectors of `ids` [1, rows], as [1, rows, hidden].
    fn embed(&self, ids: &Array) -> Result<Array>;
    /// What the model makes of the next vectors of `texts`, the rows of one text after those of
    /// another; same shape.
    fn forward(&self, h: &Array, texts: &mut Texts) -> Result<Array>;
    /// The logits [1, rows, vocabulary] of the token after each.
    fn head(&self, h: &Array) -> Result<Array>;
}

/// Makes a model from its config.json and its tensors.
pub type Load = fn(&Value, Cursor) -> mlxk_core::Result<Box<dyn Language>>;

/// How to load a model of `architecture`.
pub fn load(architecture: Architecture) -> Load {
    match architecture {
        Architecture::Afmoe => afmoe::load,
        Architecture::Apertus => llama::load_apertus,
        Architecture::BailingHybrid => bailing::load_hybrid,
        Architecture::BailingMoe => bailing::load,
        Architecture::BitNet => bitnet::load,
        Architecture::Cohere => cohere::load,
        Architecture::Cohere2 => cohere::load_2,
        Architecture::Deepseek => deepseek::load_1,
        Architecture::DeepseekV2 => deepseek::load_2,
        Architecture::DeepseekV3 => deepseek::load_3,
        Architecture::DeepseekV32 => deepseek::load_32,
        Architecture::DeepseekV41 => deepseek_v41::load,
        Architecture::Dots1 => deepseek::load_dots,
        Architecture::Ernie45 => llama::load_traditional,
        Architecture::Exaone => exaone::load,
        Architecture::Ernie45Moe => ernie::load_moe,
        Architecture::Exaone4 => exaone::load_4,
        Architecture::ExaoneMoe => exaone::load_moe,
        Architecture::FalconH1 => falcon_h::load,
        Architecture::Gemma => gemma::load,
        Architecture::Gemma2 => gemma::load_2,
        Architecture::Gemma3 => gemma::load_3,
        Architecture::Gemma3Text => gemma::load_3_text,
        Architecture::Gemma3n => gemma3n::load,
        Architecture::Gemma4 => gemma4::load,
        Architecture::Gemma4Text => gemma4::load_text,
        Architecture::Glm => glm::load,
        Architecture::Glm4 => glm::load_4,
        Architecture::Glm4Moe | Architecture::SolarOpen => glm::load_4_moe,
        Architecture::GlmMoeDsa => deepseek::load_glm_dsa,
        Architecture::Glm4MoeLite => deepseek::load_glm,
        Architecture::Gpt2 => gpt::load_2,
        Architecture::GptBigCode => gpt::load_big_code,
        Architecture::GptJ => gpt::load_j,
        Architecture::GptNeoX => gpt::load_neox,
        Architecture::GptOss => gpt_oss::load,
        Architecture::Granite => granite::load,
        Architecture::GraniteMoeHybrid => granite_hybrid::load,
        Architecture::GraniteMoe => granite::load_moe,
        Architecture::Helium => llama::load_traditional,
        Architecture::Hunyuan => hunyuan::load,
        Architecture::HunyuanV1Dense => hunyuan::load_dense,
        Architecture::InternLm2 => internlm::load_2,
        Architecture::InternLm3 => llama::load,
        Architecture::Jamba => jamba::load,
        Architecture::KimiK25 | Architecture::KimiVl => deepseek::load_within,
        Architecture::KimiLinear => kimi::load,
        Architecture::Laguna => laguna::load,
        Architecture::Lfm2 => lfm::load,
        Architecture::Lfm2Moe => lfm::load_moe,
        Architecture::Lfm2Vl => lfm::load_vl,
        Architecture::Llama => llama::load,
        Architecture::Llama4 => llama4::load,
        Architecture::Llama4Text => llama::load_4_text,
        Architecture::Mamba => mamba::load,
        Architecture::Mamba2 => mamba::load_2,
        Architecture::Mimo => llama::load_mimo,
        Architecture::MimoV2Flash => mimo::load,
        Architecture::MiniCpm => granite::load_minicpm,
        Architecture::MiniCpm3 => deepseek::load_minicpm,
        Architecture::MiniMax => mixtral::load_minimax,
        Architecture::Ministral3 => mistral::load_mini_3,
        Architecture::Mistral => llama::load_mistral,
        Architecture::Mistral3 | Architecture::Pixtral => mistral::load_3,
        Architecture::Mistral4 => mistral::load_4,
        Architecture::Mixtral => mixtral::load,
        Architecture::Nanochat => nanochat::load,
        Architecture::Nemotron => llama::load_nemotron,
        Architecture::NemotronH => nemotron_h::load,
        Architecture::Olmo => olmo::load,
        Architecture::Olmo2 => olmo::load_2,
        Architecture::Olmo3 => olmo::load_3,
        Architecture::Olmoe => olmo::load_e,
        Architecture::Phi => phi::load,
        Architecture::Phi3 => phi::load_3,
        Architecture::PhiMoe => mixtral::load_phi,
        Architecture::Phixtral => mixtral::load_phixtral,
        Architecture::Qwen2 => qwen::load_2,
        Architecture::Qwen2Moe => qwen::load_2_moe,
        Architecture::Qwen2Vl => qwen::load_2_vl,
        Architecture::Qwen3 => qwen::load_3,
        Architecture::Qwen35 => qwen_next::load_5,
        Architecture::Qwen35Moe => qwen_next::load_5_moe,
        Architecture::Qwen3Next => qwen_next::load,
        Architecture::Qwen3Moe => qwen::load_3_moe,
        Architecture::Qwen3Vl => qwen::load_3_vl,
        Architecture::Qwen3VlMoe => qwen::load_3_vl_moe,
        Architecture::SeedOss => llama::load,
        Architecture::SmolLm3 => smollm::load,
        Architecture::StableLm => gpt::load_stablelm,
        Architecture::Starcoder2 => gpt::load_starcoder_2,
        Architecture::TeleChat3 => llama::load,
        Architecture::YoutuLlm => deepseek::load_youtu,
    }
}
