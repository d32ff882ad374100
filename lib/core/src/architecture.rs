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
    Llama = "llama" | "iquestcoder" | "xverse",
    Mistral = "mistral",
    Qwen2 = "qwen2",
    Qwen3 = "qwen3",
    SmolLm3 = "smollm3",
}

impl Architecture {
    /// Its own name.
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// The architecture of a `model_type`.
    pub fn find(model_type: &str) -> Option<Architecture> {
        let mut all = Architecture::ALL.iter().copied();
        all.find(|architecture| architecture.names().contains(&model_type))
    }
}
