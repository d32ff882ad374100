//! State of a batch and of its sequences.

use std::ops::Range;
use std::sync::Arc;

use mlxk_models::vision::Features;
use mlxk_models::vision::mrope::MropePositions;
use mlxk_processor::{Constraint, Media, Sampling, Token};
use mlxk_tensor::cache::Cache;

use super::pace::{Pace, Work};
use crate::prefix_cache::{Key, PrefixCache};
use crate::sample::Draw;
use crate::sample::device::Sampled;

/// Tokens that a step yields, each with the number of its sequence; an error ends its sequence.
pub type Step = Vec<(u64, mlxk_core::Result<Token>)>;

/// Batch of the sequences that a model continues.
#[derive(Default)]
pub struct Batch {
    /// Sequences in the order in which they joined.
    pub sequences: Vec<Sequence>,
    /// Tokens that are sampled on the device and not read yet.
    pub queued: Option<Queued>,
    /// Caches of sequences that are over.
    pub prefix_cache: PrefixCache,
    /// Number of sequences that ever joined; the last one has this number.
    pub joined: u64,
    /// Number of steps taken.
    pub steps: u64,
    /// Measured times of the steps.
    pub pace: Pace,
    /// Work of the step that is being taken.
    pub work: Work,
}

/// Sequence that is being continued.
pub struct Sequence {
    /// Number of the sequence in its model.
    pub number: u64,
    /// Cache of the sequence; none before its first step.
    pub cache: Option<Cache>,
    /// Number of tokens of the prompt that were found in a cache.
    pub reused: usize,
    /// Cache of the draft model, and the number of tokens that it holds.
    pub draft: Option<(Cache, usize)>,
    /// Token ids of the prompt and of the continuation so far.
    pub tokens: Vec<u32>,
    /// Pictures among the tokens of the prompt.
    pub media: Vec<Media>,
    /// Features of each picture, from its first token to its last.
    pub features: Vec<Option<Features>>,
    /// Places of the tokens of pictures, which attend to each other in some models.
    pub blocks: Arc<[Range<i32>]>,
    /// Positions of the prompt, if they are not consecutive.
    pub positions: Option<MropePositions>,
    /// Number of tokens that the cache holds, once the queued work is done.
    pub fed: usize,
    /// Settings of sampling.
    pub sampling: Sampling,
    /// Number of tokens sampled so far.
    pub chosen: u64,
    /// Constraint of the tokens that may come, if there is one.
    pub constraint: Option<Box<dyn Constraint>>,
}

/// Tokens that are sampled on the device and not read yet.
pub struct Queued {
    /// The tokens, a row for each sequence.
    pub sampled: Sampled,
    /// Number of the sequence of each row.
    pub sequences: Vec<u64>,
}

impl Batch {
    /// Number of sequences that have a token already, and get another one in each step.
    pub fn decoding(&self) -> usize {
        self.sequences.iter().filter(|sequence| sequence.chosen > 0).count()
    }

    /// Tokens left of each prompt that is being prefilled, the oldest first, with the index of its
    /// sequence.
    pub fn prompts(&self) -> impl Iterator<Item = (usize, usize)> {
        let sequences = self.sequences.iter().enumerate();
        let waiting = sequences.filter(|(_, own)| own.chosen == 0 && own.cache.is_some());
        waiting.map(|(place, own)| (place, own.tokens.len() - own.fed))
    }
}

impl Sequence {
    /// Key of the sequence in the prefix cache.
    pub fn key(&self) -> Key {
        let media = self.media.iter().map(|media| (media.tokens.clone(), media.pixels.hash));
        Key { tokens: self.tokens.clone(), media: media.collect() }
    }

    /// Number of the next tokens that is closest to `rows` and cuts no picture whose tokens attend to
    /// each other: fewer, if there are any before the picture.
    pub fn uncut(&self, rows: usize) -> usize {
        let both_ways = self.cache.as_ref().is_some_and(Cache::has_blocks);
        let end = self.fed + rows;
        let places = self.blocks.iter().map(|block| block.start as usize..block.end as usize);
        let cut = places.filter(|_| both_ways).find(|place| place.start < end && end < place.end);
        match cut {
            Some(place) if rows > 0 && place.start > self.fed => place.start - self.fed,
            Some(place) if rows > 0 => place.end - self.fed,
            _ => rows,
        }
    }

    /// Positions of the next `rows` tokens, if they are not consecutive.
    pub fn next_positions(&self, rows: usize) -> Option<Vec<[i32; 3]>> {
        let own = self.positions.as_ref().filter(|own| self.fed < own.rows.len())?;
        let at = |i: usize| own.rows.get(i).copied().unwrap_or([i as i32 + own.delta; 3]);
        Some((self.fed..self.fed + rows).map(at).collect())
    }

    /// Bits of the tokens that the constraint allows next; none if there is no constraint.
    ///
    /// # Errors
    /// If the constraint fails.
    pub fn allowed(&mut self) -> mlxk_core::Result<Option<Vec<u32>>> {
        self.constraint.as_mut().map(|constraint| constraint.allowed()).transpose()
    }

    /// Draw of the token after the first `known` ones, among those that `allowed` has bits of.
    pub fn draw(&self, known: usize, allowed: Option<Vec<u32>>) -> Draw<'_> {
        let recent = &self.tokens[..known];
        let (sampling, tokens, number) = (&self.sampling, &*self.tokens, self.chosen);
        Draw { sampling, recent, tokens, number, allowed }
    }

    /// True if sampling depends on the token before in ways that the device cannot compute.
    pub fn needs_last(&self) -> bool {
        self.constraint.is_some() || self.sampling.has_dry()
    }

    /// Appends a sampled token.
    ///
    /// # Errors
    /// If the constraint forbids the token.
    pub fn push(&mut self, token: Token) -> mlxk_core::Result<Token> {
        if let Some(constraint) = &mut self.constraint {
            constraint.push(token.id)?;
        }
        self.tokens.push(token.id);
        Ok(token)
    }
}
