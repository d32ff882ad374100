//! Networks, by what they compute.

use mlxk_core::{Error, Result};

use mlxk_tensor::mlx;

use crate::encoder::{Encoder, LanguageEncoder, LanguageOptions, ScoreHead};
use crate::language::Language;
use crate::speech::Speech;

/// A network in memory.
pub enum Network {
    /// Tokens to logits of the next token.
    Language(Box<dyn Language>),
    /// Tokens of whole sequences to a score of each: a language model with another head.
    Scorer(Box<dyn Language>, ScoreHead),
    /// Tokens of whole sequences to a vector of each.
    Encoder(Box<dyn Encoder>),
    /// Audio to the tokens of its speech.
    Speech(Speech),
}

impl Network {
    /// The language model.
    ///
    /// # Errors
    /// If the network does not write text.
    pub fn language(self) -> Result<Box<dyn Language>> {
        match self {
            Network::Language(network) => Ok(network),
            Network::Scorer(..) => Err(Error::unsupported("a classifier, which writes no text")),
            Network::Encoder(_) => Err(Error::unsupported("an encoder, which writes no text")),
            Network::Speech(_) => Err(Error::unsupported("a speech model, which needs audio")),
        }
    }

    /// The speech network.
    ///
    /// # Errors
    /// If the network takes no audio.
    pub fn speech(self) -> Result<Speech> {
        match self {
            Network::Speech(network) => Ok(network),
            Network::Language(_) | Network::Scorer(..) | Network::Encoder(_) => {
                Err(Error::unsupported("a model of text, which takes no audio"))
            }
        }
    }

    /// The encoder; a language model becomes one as `options` say.
    ///
    /// # Errors
    /// If a language model cannot take a token.
    pub fn encoder(self, options: LanguageOptions) -> Result<Box<dyn Encoder>> {
        match self {
            Network::Encoder(network) => Ok(network),
            Network::Language(network) => language_encoder(network, None, options),
            Network::Scorer(network, score) => language_encoder(network, Some(score), options),
            Network::Speech(_) => Err(Error::unsupported("a speech model, which embeds no text")),
        }
    }
}

fn language_encoder(
    network: Box<dyn Language>,
    score: Option<ScoreHead>,
    options: LanguageOptions,
) -> Result<Box<dyn Encoder>> {
    let encoder = LanguageEncoder::new(network, score, options).map_err(mlx::failed)?;
    Ok(Box::new(encoder))
}
