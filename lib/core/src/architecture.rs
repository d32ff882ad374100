//! The architectures that can run: the only list of them, which the engine follows.

/// The input of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// Text.
    Text,
    /// Text and images, or text and audio; only the text part of such a model runs.
    Multimodal,
}

/// What the networks of an architecture compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// Text that continues a prompt.
    Language,
    /// Vectors of texts, or scores of pairs of texts.
    Encoder,
    /// Text of speech.
    Speech,
}

/// The columns of the list.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The values of `model_type` in `config.json`; the first is the architecture's own name.
    names: &'static [&'static str],
    /// The input of the architecture's models.
    modality: Modality,
    /// The only class of `architectures` that runs, if other classes share the `model_type`.
    class: Option<&'static str>,
    /// A `quant_method` of `config.json` that only this architecture computes with.
    quant_method: Option<&'static str>,
    /// What the architecture's networks compute.
    kind: NetworkKind,
}

impl Row {
    /// The columns that a row does not state.
    const DEFAULT: Row = Row {
        names: &[],
        modality: Modality::Text,
        class: None,
        quant_method: None,
        kind: NetworkKind::Language,
    };
}

/// Makes the enum and its list from a line for each architecture: the variant, its `model_type`,
/// further values of `model_type` with the same meaning, and the columns that are not the default.
macro_rules! architectures {
    ($($variant:ident = $name:literal $(| $alias:literal)* $(, $column:ident: $value:expr)*;)*) => {
        /// The architecture of a network.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // `name` spells each variant as `config.json` does
        pub enum Architecture {
            $($variant,)*
        }

        impl Architecture {
            /// Every architecture.
            pub const ALL: &'static [Architecture] = &[$(Architecture::$variant,)*];

            fn row(self) -> &'static Row {
                const ROWS: &[Row] = &[
                    $(Row { names: &[$name $(, $alias)*] $(, $column: $value)*, ..Row::DEFAULT },)*
                ];
                &ROWS[self as usize]
            }
        }
    };
}

#[rustfmt::skip] // a line for each
architectures! {
    Afmoe = "afmoe";
    Apertus = "apertus";
    BailingHybrid = "bailing_hybrid", class: Some("BailingMoeV3ForCausalLM");
    BailingMoe = "bailing_moe";
    Bert = "bert", kind: NetworkKind::Encoder;
    BitNet = "bitnet", quant_method: Some("bitnet");
    Cohere = "cohere";
    Cohere2 = "cohere2";
    Deepseek = "deepseek";
    DeepseekV2 = "deepseek_v2";
    DeepseekV3 = "deepseek_v3" | "kimi_k2" | "joyai_llm_flash";
    DeepseekV32 = "deepseek_v32";
    DeepseekV41 = "deepseek_v41" | "deepseek_v41_text", modality: Modality::Multimodal;
    DistilBert = "distilbert", kind: NetworkKind::Encoder;
    Dots1 = "dots1";
    Ernie45 = "ernie4_5";
    EuroBert = "eurobert", kind: NetworkKind::Encoder;
    Exaone = "exaone";
    Ernie45Moe = "ernie4_5_moe";
    Exaone4 = "exaone4";
    ExaoneMoe = "exaone_moe";
    FalconH1 = "falcon_h1";
    Gemma = "gemma";
    Gemma2 = "gemma2";
    Gemma3 = "gemma3", modality: Modality::Multimodal;
    Gemma3Text = "gemma3_text";
    Gemma3n = "gemma3n", modality: Modality::Multimodal;
    Gemma4 = "gemma4" | "gemma4_unified", modality: Modality::Multimodal;
    Gemma4Text = "gemma4_text";
    Glm = "glm";
    Glm4 = "glm4";
    Glm4Moe = "glm4_moe";
    Glm4MoeLite = "glm4_moe_lite";
    GlmMoeDsa = "glm_moe_dsa";
    Gpt2 = "gpt2";
    GptBigCode = "gpt_bigcode";
    GptJ = "gptj";
    GptNeoX = "gpt_neox";
    GptOss = "gpt_oss";
    Gte = "new" | "gte", kind: NetworkKind::Encoder;
    Granite = "granite";
    GraniteMoeHybrid = "granitemoehybrid";
    GraniteMoe = "granitemoe";
    Helium = "helium";
    Hunyuan = "hunyuan";
    HunyuanV1Dense = "hunyuan_v1_dense";
    Idefics3 = "idefics3" | "smolvlm", modality: Modality::Multimodal;
    InternLm2 = "internlm2";
    InternLm3 = "internlm3";
    InternVlChat = "internvl_chat", modality: Modality::Multimodal;
    Jamba = "jamba";
    JinaEmbeddings3 = "jina_embeddings_v3", kind: NetworkKind::Encoder;
    KimiK25 = "kimi_k25", modality: Modality::Multimodal;
    KimiLinear = "kimi_linear";
    KimiVl = "kimi_vl", modality: Modality::Multimodal;
    Laguna = "laguna";
    Lfm2 = "lfm2";
    Lfm2Moe = "lfm2_moe";
    Lfm2Vl = "lfm2-vl" | "lfm2_vl", modality: Modality::Multimodal;
    Llama = "llama" | "iquestcoder" | "xverse";
    Llama4 = "llama4", modality: Modality::Multimodal;
    Llama4Text = "llama4_text";
    Llava = "llava", modality: Modality::Multimodal;
    LlavaNext = "llava_next", modality: Modality::Multimodal;
    Mamba = "mamba" | "falcon_mamba";
    Mamba2 = "mamba2";
    Mimo = "mimo";
    MimoV2Flash = "mimo_v2_flash";
    MiniCpm = "minicpm";
    MiniCpm3 = "minicpm3";
    MiniMax = "minimax" | "minimax_m2";
    Ministral3 = "ministral3";
    Mistral = "mistral";
    Mistral3 = "mistral3", modality: Modality::Multimodal;
    Mistral4 = "mistral4";
    Mixtral = "mixtral";
    ModernBert = "modernbert", kind: NetworkKind::Encoder;
    Moonshine = "moonshine", kind: NetworkKind::Speech;
    Mpnet = "mpnet", kind: NetworkKind::Encoder;
    Nanochat = "nanochat";
    Nemotron = "nemotron";
    NemotronH = "nemotron_h";
    NomicBert = "nomic_bert", kind: NetworkKind::Encoder;
    Olmo = "olmo" | "hf_olmo";
    Olmo2 = "olmo2";
    Olmo3 = "olmo3";
    Olmoe = "olmoe";
    Parakeet = "parakeet", kind: NetworkKind::Speech;
    Phi = "phi";
    Phi3 = "phi3";
    PhiMoe = "phimoe";
    Phixtral = "phixtral" | "phi-msft";
    Pixtral = "pixtral", modality: Modality::Multimodal;
    Qwen2 = "qwen2";
    Qwen2Moe = "qwen2_moe";
    Qwen2Vl = "qwen2_vl" | "qwen2_5_vl", modality: Modality::Multimodal;
    Qwen3 = "qwen3";
    Qwen35 = "qwen3_5", modality: Modality::Multimodal;
    Qwen35Moe = "qwen3_5_moe", modality: Modality::Multimodal;
    Qwen3Next = "qwen3_next";
    Qwen3Asr = "qwen3_asr", kind: NetworkKind::Speech;
    Qwen3Moe = "qwen3_moe";
    Qwen3Vl = "qwen3_vl", modality: Modality::Multimodal;
    Qwen3VlMoe = "qwen3_vl_moe", modality: Modality::Multimodal;
    Roberta = "roberta" | "xlm-roberta" | "camembert", kind: NetworkKind::Encoder;
    SeedOss = "seed_oss";
    SmolLm3 = "smollm3";
    SolarOpen = "solar_open";
    StableLm = "stablelm";
    Starcoder2 = "starcoder2";
    StaticEmbedding = "model2vec" | "static_embedding", kind: NetworkKind::Encoder;
    TeleChat3 = "telechat3";
    Whisper = "whisper", kind: NetworkKind::Speech;
    YoutuLlm = "youtu_llm";
}

impl Architecture {
    /// The architecture's own name: its first `model_type`.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// The values of `model_type` in `config.json` that mean this architecture.
    pub fn names(self) -> &'static [&'static str] {
        self.row().names
    }

    /// The input of the architecture's models.
    pub fn modality(self) -> Modality {
        self.row().modality
    }

    /// True if models of the architecture also take images or audio; only their text part runs.
    pub fn is_multimodal(self) -> bool {
        self.modality() == Modality::Multimodal
    }

    /// The only class of `architectures` that runs, if other classes share the `model_type`.
    pub fn class(self) -> Option<&'static str> {
        self.row().class
    }

    /// A `quant_method` of `config.json` that only this architecture computes with.
    pub fn quant_method(self) -> Option<&'static str> {
        self.row().quant_method
    }

    /// What the architecture's networks compute.
    pub fn kind(self) -> NetworkKind {
        self.row().kind
    }

    /// True if the architecture's models are encoders: they embed text and write none.
    pub fn is_encoder(self) -> bool {
        self.kind() == NetworkKind::Encoder
    }

    /// The architecture of a `model_type`.
    pub fn find(model_type: &str) -> Option<Architecture> {
        let mut all = Architecture::ALL.iter().copied();
        all.find(|architecture| architecture.names().contains(&model_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_type_means_one_architecture() {
        for &architecture in Architecture::ALL {
            for name in architecture.names() {
                assert_eq!(Architecture::find(name), Some(architecture), "{name}");
            }
        }
    }
}
