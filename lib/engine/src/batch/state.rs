//! State of the sequences that a model continues together.

use mlx_rs::Array;
use mlxk_models::vision::mrope::MropePositions;
use mlxk_processor::{Constraint, Media, Sampling, Token};
use mlxk_tensor::cache::Cache;

use crate::prefix_cache::{Key, Prefixes};
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
    /// The texts of its rows.
    pub texts: Vec<u64>,
}

impl Text {
    /// Key of the text in the prefix cache.
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
