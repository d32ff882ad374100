//! Rows of the table of architectures: what sets an architecture apart beside its layers.

use mlxk_core::Architecture;

use crate::checkpoint::formats::{ExpertLayout, Sanitize};
use crate::language::Load;

/// Row of an architecture: how its checkpoints are read, loaded and converted.
#[derive(Clone, Copy)]
pub struct Spec {
    /// Architecture that the row describes.
    pub architecture: Architecture,
    /// Loader of the network from a checkpoint in MLX's form.
    pub load: Load,
    /// Steps that bring a checkpoint of another form into MLX's, in order. Steps that all
    /// architectures need are not listed ([`crate::checkpoint::formats::sanitize`]).
    pub sanitize: &'static [Sanitize],
    /// Names and layout of experts.
    pub experts: ExpertLayout,
    /// Exceptions that conversion makes.
    pub convert: Rules,
}

impl Spec {
    /// Row of an architecture that needs nothing but its loader.
    pub const fn new(architecture: Architecture, load: Load) -> Spec {
        Spec {
            architecture,
            load,
            sanitize: &[],
            experts: ExpertLayout::DEFAULT,
            convert: Rules::NONE,
        }
    }
}

/// Exceptions that conversion makes, as mlx-lm does; lists hold the ends of names.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Matrices that are quantised to 8 bits whatever is asked for: routers, and matrices whose
    /// weights are too small for scales of few bits.
    pub eight: &'static [&'static str],
    /// Matrices that are never quantised.
    pub plain: &'static [&'static str],
    /// Tensors that keep their dtype: sums of many small numbers.
    pub keep: &'static [&'static str],
    /// True if the output gets a head of its own, a copy of the embeddings, where they are tied.
    pub untie: bool,
}

impl Rules {
    /// No exceptions.
    pub const NONE: Rules = Rules { eight: &[], plain: &[], keep: &[], untie: false };

    /// Exceptions for routers of DeepSeek's kind, which are plain.
    pub const ROUTED: Rules = Rules { plain: &["mlp.gate"], ..Rules::NONE };

    /// [`Rules::ROUTED`] for routers whose scores are corrected.
    pub const CORRECTED: Rules = Rules { keep: &["e_score_correction_bias"], ..Rules::ROUTED };
}
