//! State of the sequences that a model continues together.

use mlxk_processor::{Constraint, Sampling, Token};
use mlxk_tensor::cache::Cache;

use crate::prefix_cache::Prefixes;
use crate::sample::Turn;
use crate::sample::device::Choice;

/// The tokens of a step, each with the number of its text.
pub type Step = Vec<(u64, mlxk_core::Result<Token>)>;

/// The texts of a model.
#[derive(Default)]
pub struct Batch {
    pub texts: Vec<Text>,
    /// The tokens that are chosen, or soon will be, but not read.
    pub queued: Option<Queued>,
    /// What is remembered of texts that are over.
    pub prefixes: Prefixes,
    /// Sequences that ever joined.
    pub joined: u64,
    /// Steps taken.
    pub steps: u64,
}

/// A text that is being continued.
pub struct Text {
    pub number: u64,
    /// None before its first step.
    pub cache: Option<Cache>,
    /// Tokens of the prompt that were remembered.
    pub reused: usize,
    /// What a draft model remembers, and how many tokens it has seen.
    pub draft: Option<(Cache, usize)>,
    /// The tokens that are known.
    pub tokens: Vec<u32>,
    /// How many of them the cache has seen, or will have when what is queued is done.
    pub fed: usize,
    pub sampling: Sampling,
    /// Choices made.
    pub chosen: u64,
    pub constraint: Option<Box<dyn Constraint>>,
}

/// Tokens whose choice is queued.
pub struct Queued {
    pub choice: Choice,
    /// The texts of its rows.
    pub texts: Vec<u64>,
}

impl Text {
    /// What rules allow next, if there are any.
    pub fn allowed(&mut self) -> mlxk_core::Result<Option<Vec<u32>>> {
        self.constraint.as_mut().map(|constraint| constraint.allowed()).transpose()
    }

    /// The choice after the first `known` tokens.
    pub fn turn(&self, known: usize, allowed: Option<Vec<u32>>) -> Turn<'_> {
        let recent = &self.tokens[..known];
        let (sampling, tokens, number) = (&self.sampling, &*self.tokens, self.chosen);
        Turn { sampling, recent, tokens, number, allowed }
    }

    /// True if the choice of a token depends on the one before it, beyond the penalties.
    pub fn needs_last(&self) -> bool {
        self.constraint.is_some() || self.sampling.has_dry()
    }

    /// Goes on by a token, unless rules forbid it.
    pub fn push(&mut self, token: Token) -> mlxk_core::Result<Token> {
        if let Some(constraint) = &mut self.constraint {
            constraint.push(token.id)?;
        }
        self.tokens.push(token.id);
        Ok(token)
    }
}
