//! Rows of the table of architectures: what sets an architecture apart beside its layers.

use mlxk_core::{Architecture, Result};
use serde_json::Value;

use crate::checkpoint::cursor::Cursor;
use crate::checkpoint::formats::{ExpertLayout, Sanitize};
use crate::encoder::{Encoder, ScoreHead};
use crate::language::Language;
use crate::network::Network;
use crate::speech::Speech;

/// Loader of a network from its config.json and its tensors.
#[derive(Clone, Copy)]
pub enum Load {
    /// Loader of a language model.
    Language(fn(&Value, Cursor) -> Result<Box<dyn Language>>),
    /// Loader of an encoder.
    Encoder(fn(&Value, Cursor) -> Result<Box<dyn Encoder>>),
    /// Loader of a speech network.
    Speech(fn(&Value, Cursor) -> Result<Speech>),
}

impl Load {
    /// Loads the network that `config` describes from the tensors at `w`.
    ///
    /// # Errors
    /// If they are not those of such a network.
    pub fn run(self, config: &Value, mut w: Cursor) -> Result<Network> {
        match self {
            Load::Language(load) => {
                let score = ScoreHead::load(config, &mut w)?;
                let network = load(config, w)?;
                Ok(match score {
                    Some(score) => Network::Scorer(network, score),
                    None => Network::Language(network),
                })
            }
            Load::Encoder(load) => load(config, w).map(Network::Encoder),
            Load::Speech(load) => load(config, w).map(Network::Speech),
        }
    }
}

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
    /// Row of a language model that needs nothing but its loader.
    pub const fn new(
        architecture: Architecture,
        load: fn(&Value, Cursor) -> Result<Box<dyn Language>>,
    ) -> Spec {
        Spec::loaded(architecture, Load::Language(load))
    }

    /// Row of an encoder that needs nothing but its loader.
    pub const fn encoder(
        architecture: Architecture,
        load: fn(&Value, Cursor) -> Result<Box<dyn Encoder>>,
    ) -> Spec {
        Spec::loaded(architecture, Load::Encoder(load))
    }

    /// Row of a speech network that needs nothing but its loader.
    pub const fn speech(
        architecture: Architecture,
        load: fn(&Value, Cursor) -> Result<Speech>,
    ) -> Spec {
        Spec::loaded(architecture, Load::Speech(load))
    }

    const fn loaded(architecture: Architecture, load: Load) -> Spec {
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
