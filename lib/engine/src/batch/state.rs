//! State of the sequences that a model continues together.

use mlx_rs::Array;
use mlxk_models::vision::mrope::MropePositions;
use mlxk_processor::{Constraint, Media, Sampling, Token};
use mlxk_tensor::cache::Cache;

use crate::prefix_cache::{Key, PrefixCache};
use crate::sample::Draw;
use crate::sample::device::Choice;

/// The tokens of a step, each with the number of its sequence.
pub type Step = Vec<(u64, mlxk_core::Result<Token>)>;

/// The sequences of a model.
#[derive(Default)]
pub struct Batch {
    pub sequences: Vec<Sequence>,
    /// The tokens that are chosen, or soon will be, but not read.
    pub queued: Option<Queued>,
    /// What is remembered of sequences that are over.
    pub prefix_cache: PrefixCache,
    /// Sequences that ever joined.
    pub joined: u64,
    /// Steps taken.
    pub steps: u64,
}

/// A sequence that is being continued.
pub struct Sequence {
    pub number: u64,
    /// None before its first step.
    pub cache: Option<Cache>,
    /// Tokens of the prompt that were remembered.
    pub reused: usize,
    /// What a draft model remembers, and how many tokens it has seen.
    pub draft: Option<(Cache, usize)>,
    /// The tokens that are known.
    pub tokens: Vec<u32>,
    /// Pictures among the tokens of the prompt.
    pub media: Vec<Media>,
    /// Features of these pictures, once they are needed.
    pub features: Vec<Option<Array>>,
    /// Positions of the prompt, if they are not consecutive.
    pub positions: Option<MropePositions>,
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
    /// The sequences of its rows.
    pub sequences: Vec<u64>,
}

impl Sequence {
    /// Key of the sequence in the prefix cache.
    pub fn key(&self) -> Key {
        let media = self.media.iter().map(|media| (media.tokens.clone(), media.pixels.hash));
        Key { tokens: self.tokens.clone(), media: media.collect() }
    }

    /// Positions of the next `rows` tokens, if they are not consecutive.
    pub fn next_positions(&self, rows: usize) -> Option<Vec<[i32; 3]>> {
        let own = self.positions.as_ref().filter(|own| self.fed < own.rows.len())?;
        let at = |i: usize| own.rows.get(i).copied().unwrap_or([i as i32 + own.delta; 3]);
        Some((self.fed..self.fed + rows).map(at).collect())
    }

    /// What rules allow next, if there are any.
    pub fn allowed(&mut self) -> mlxk_core::Result<Option<Vec<u32>>> {
        self.constraint.as_mut().map(|constraint| constraint.allowed()).transpose()
    }

    /// The choice after the first `known` tokens.
    pub fn draw(&self, known: usize, allowed: Option<Vec<u32>>) -> Draw<'_> {
        let recent = &self.tokens[..known];
        let (sampling, tokens, number) = (&self.sampling, &*self.tokens, self.chosen);
        Draw { sampling, recent, tokens, number, allowed }
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
