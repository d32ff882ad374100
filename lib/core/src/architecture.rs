//! The architectures that can run, by the names that configurations give them: the one list, which
//! the engine follows.

/// Makes the enum and its list from a row for each: the variant, its `model_type`, and others that
/// are the same architecture.
macro_rules! architectures {
    ($($variant:ident = $name:literal $(| $alias:literal)*,)*) => {
        /// What a network is like.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)] // the names are the documentation, and `name` spells them
        pub enum Architecture {
            $($variant,)*
        }

        impl Architecture {
            /// All of them.
            pub const ALL: &'static [Architecture] = &[$(Architecture::$variant,)*];

            /// The values of `model_type` in `config.json` that mean it; the first is its own name.
            pub fn names(self) -> &'static [&'static str] {
                match self {
                    $(Architecture::$variant => &[$name $(, $alias)*],)*
                }
            }
        }
    };
}

architectures! {
    Afmoe = "afmoe",
    Apertus = "apertus",
    BailingHybrid = "bailing_hybrid",
    BailingMoe = "bailing_moe",
    BitNet = "bitnet",
    Cohere = "cohere",
    Cohere2 = "cohere2",
    Deepseek = "deepseek",
    DeepseekV2 = "deepseek_v2",
    DeepseekV3 = "deepseek_v3" | "kimi_k2" | "joyai_llm_flash",
    DeepseekV32 = "deepseek_v32",
    DeepseekV41 = "deepseek_v41" | "deepseek_v41_text",
    Dots1 = "dots1",
    Ernie45 = "ernie4_5",
    Exaone = "exaone",
    Ernie45Moe = "ernie4_5_moe",
    Exaone4 = "exaone4",
    ExaoneMoe = "exaone_moe",
    FalconH1 = "falcon_h1",
    Gemma = "gemma",
    Gemma2 = "gemma2",
    Gemma3 = "gemma3",
    Gemma3Text = "gemma3_text",
    Gemma3n = "gemma3n",
    Gemma4 = "gemma4" | "gemma4_unified",
    Gemma4Text = "gemma4_text",
    Glm = "glm",
    Glm4 = "glm4",
    Glm4Moe = "glm4_moe",
    Glm4MoeLite = "glm4_moe_lite",
    GlmMoeDsa = "glm_moe_dsa",
    Gpt2 = "gpt2",
    GptBigCode = "gpt_bigcode",
    GptJ = "gptj",
    GptNeoX = "gpt_neox",
    GptOss = "gpt_oss",
    Granite = "granite",
    GraniteMoeHybrid = "granitemoehybrid",
    GraniteMoe = "granitemoe",
    Helium = "helium",
    Hunyuan = "hunyuan",
    HunyuanV1Dense = "hunyuan_v1_dense",
    InternLm2 = "internlm2",
    InternLm3 = "internlm3",
    Jamba = "jamba",
    KimiK25 = "kimi_k25",
    KimiLinear = "kimi_linear",
    KimiVl = "kimi_vl",
    Laguna = "laguna",
    Lfm2 = "lfm2",
    Lfm2Moe = "lfm2_moe",
    Lfm2Vl = "lfm2-vl" | "lfm2_vl",
    Llama = "llama" | "iquestcoder" | "xverse",
    Llama4 = "llama4",
    Llama4Text = "llama4_text",
    Mamba = "mamba" | "falcon_mamba",
    Mamba2 = "mamba2",
    Mimo = "mimo",
    MimoV2Flash = "mimo_v2_flash",
    MiniCpm = "minicpm",
    MiniCpm3 = "minicpm3",
    MiniMax = "minimax" | "minimax_m2",
    Ministral3 = "ministral3",
    Mistral = "mistral",
    Mistral3 = "mistral3" | "llava",
    Mistral4 = "mistral4",
    Mixtral = "mixtral",
    Nanochat = "nanochat",
    Nemotron = "nemotron",
    NemotronH = "nemotron_h",
    Olmo = "olmo" | "hf_olmo",
    Olmo2 = "olmo2",
    Olmo3 = "olmo3",
    Olmoe = "olmoe",
    Phi = "phi",
    Phi3 = "phi3",
    PhiMoe = "phimoe",
    Phixtral = "phixtral" | "phi-msft",
    Pixtral = "pixtral",
    Qwen2 = "qwen2",
    Qwen2Moe = "qwen2_moe",
    Qwen2Vl = "qwen2_vl" | "qwen2_5_vl",
    Qwen3 = "qwen3",
    Qwen35 = "qwen3_5",
    Qwen35Moe = "qwen3_5_moe",
    Qwen3Next = "qwen3_next",
    Qwen3Moe = "qwen3_moe",
    Qwen3Vl = "qwen3_vl",
    Qwen3VlMoe = "qwen3_vl_moe",
    SeedOss = "seed_oss",
    SmolLm3 = "smollm3",
    SolarOpen = "solar_open",
    StableLm = "stablelm",
    Starcoder2 = "starcoder2",
    TeleChat3 = "telechat3",
    YoutuLlm = "youtu_llm",
}

impl Architecture {
    /// Its own name.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// Whether models of it also take pictures or sound: only their text part can run.
    pub fn is_multimodal(self) -> bool {
        use Architecture as A;
        matches!(
            self,
            A::DeepseekV41
                | A::Gemma3
                | A::Gemma3n
                | A::Gemma4
                | A::KimiK25
                | A::KimiVl
                | A::Lfm2Vl
                | A::Llama4
                | A::Mistral3
                | A::Pixtral
                | A::Qwen2Vl
                | A::Qwen35
                | A::Qwen35Moe
                | A::Qwen3Vl
                | A::Qwen3VlMoe
        )
    }

    /// The one class in `architectures` that runs, where others go by the same `model_type`.
    pub fn class(self) -> Option<&'static str> {
        match self {
            Architecture::BailingHybrid => Some("BailingMoeV3ForCausalLM"),
            _ => None,
        }
    }

    /// The architecture of a `model_type`.
    pub fn find(model_type: &str) -> Option<Architecture> {
        let mut all = Architecture::ALL.iter().copied();
        all.find(|architecture| architecture.names().contains(&model_type))
    }
}
