//! Networks, by what they compute.

use mlxk_core::{Error, Result};

use crate::encoder::Encoder;
use crate::language::Language;

/// A network in memory.
pub enum Network {
    /// Tokens to logits of the next token.
    Language(Box<dyn Language>),
    /// Tokens of whole sequences to a vector of each.
    Encoder(Box<dyn Encoder>),
}

impl Network {
    /// The language model.
    ///
    /// # Errors
    /// If the network does not write text.
    pub fn language(self) -> Result<Box<dyn Language>> {
        match self {
            Network::Language(network) => Ok(network),
            Network::Encoder(_) => Err(Error::unsupported("an encoder, which writes no text")),
        }
    }

    /// The encoder.
    ///
    /// # Errors
    /// If the network is a language model.
    pub fn encoder(self) -> Result<Box<dyn Encoder>> {
        match self {
            Network::Encoder(network) => Ok(network),
            Network::Language(_) => Err(Error::unsupported("a language model, not an encoder")),
        }
    }
}
