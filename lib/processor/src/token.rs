//! Sampled tokens, and the constraint on the next one: what a processor and a sampler exchange.

use mlxk_core::Result;

/// Token that a sampler chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Id of the token.
    pub id: u32,
    /// Natural logarithm of the token's probability before filters and temperature; present if
    /// [`Sampling::logprobs`](crate::Sampling::logprobs) is.
    pub logprob: Option<f32>,
    /// Ids and log probabilities of the most likely tokens, in descending order.
    pub top: Vec<(u32, f32)>,
}

impl Token {
    /// Token without log probabilities.
    pub fn new(id: u32) -> Token {
        Token { id, logprob: None, top: Vec::new() }
    }
}

/// Constraint on the tokens of a sequence, such as a grammar.
pub trait Constraint {
    /// Mask of the tokens that may come next: a bit for each id, the lowest bit of the first word
    /// first.
    ///
    /// # Errors
    /// If no token may come next.
    fn allowed(&mut self) -> Result<Vec<u32>>;

    /// Advances by the token that was chosen.
    ///
    /// # Errors
    /// If the token may not come here.
    fn push(&mut self, id: u32) -> Result<()>;
}
