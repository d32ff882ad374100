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
    Apertus = "apertus",
    BitNet = "bitnet",
    Cohere = "cohere",
    Cohere2 = "cohere2",
    Ernie45 = "ernie4_5",
    Exaone = "exaone",
    Exaone4 = "exaone4",
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
    Gpt2 = "gpt2",
    GptNeoX = "gpt_neox",
    Granite = "granite",
    GraniteMoeHybrid = "granitemoehybrid",
    Helium = "helium",
    HunyuanV1Dense = "hunyuan_v1_dense",
    InternLm2 = "internlm2",
    InternLm3 = "internlm3",
    Lfm2 = "lfm2",
    Llama = "llama" | "iquestcoder" | "xverse",
    Mamba = "mamba" | "falcon_mamba",
    Mamba2 = "mamba2",
    Mimo = "mimo",
    MiniCpm = "minicpm",
    Ministral3 = "ministral3",
    Mistral = "mistral",
    Mistral3 = "mistral3" | "llava",
    Nanochat = "nanochat",
    Nemotron = "nemotron",
    NemotronH = "nemotron_h",
    Olmo2 = "olmo2",
    Olmo3 = "olmo3",
    Phi = "phi",
    Phi3 = "phi3",
    Qwen2 = "qwen2",
    Qwen3 = "qwen3",
    Qwen35 = "qwen3_5",
    SeedOss = "seed_oss",
    SmolLm3 = "smollm3",
    StableLm = "stablelm",
    Starcoder2 = "starcoder2",
}

impl Architecture {
    /// Its own name.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// Whether models of it also take pictures or sound: only their text part can run.
    pub fn is_multimodal(self) -> bool {
        use Architecture::{Gemma3, Gemma3n, Gemma4, Mistral3, Qwen35};
        matches!(self, Gemma3 | Gemma3n | Gemma4 | Mistral3 | Qwen35)
    }

    /// The architecture of a `model_type`.
    pub fn find(model_type: &str) -> Option<Architecture> {
        let mut all = Architecture::ALL.iter().copied();
        all.find(|architecture| architecture.names().contains(&model_type))
    }
}
