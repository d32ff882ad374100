//! A model that is a list of steps: each norms its vectors, does one thing with them, and adds that.
//!
//! Layers of attention or state space and of feed-forward are two steps each; which follow on each
//! other is up to an architecture.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;

use crate::language::{Inputs, Language, Spliced, splice};
use crate::nn::embed_head::EmbedHead;
use crate::nn::mixer::{FeedForward, TokenMixer};
use crate::nn::norm::Norm;

/// A model, and what some multiply their vectors by.
pub struct Hybrid {
    /// Embedding, final norm and head.
    pub ends: EmbedHead,
    /// Residual blocks, in order.
    pub steps: Vec<Step>,
    /// Factors of embeddings and residuals.
    pub factors: Factors,
    /// Backend of the operations.
    pub ops: &'static dyn Ops,
}

/// What a model multiplies its vectors by.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// Those of tokens.
    pub embeddings: f32,
    /// Those that a step adds.
    pub residual: f32,
}

/// `h + part(norm(h))`.
pub struct Step {
    /// Norm of the block's input.
    pub norm: Norm,
    /// Mixer or feed-forward layer of the block.
    pub part: Part,
}

/// What a step does.
pub enum Part {
    /// Mixes the tokens of each text; of several ways the sum is taken.
    TokenMixer(Vec<Box<dyn TokenMixer>>),
    /// Looks at each token by itself.
    FeedForward(Box<dyn FeedForward>),
}

impl Factors {
    /// Nothing is multiplied.
    pub const NONE: Factors = Factors { embeddings: 1.0, residual: 1.0 };
}

impl Step {
    /// A step that mixes tokens in one way.
    pub fn mix(norm: Norm, mix: impl TokenMixer + 'static) -> Step {
        Step { norm, part: Part::TokenMixer(vec![Box::new(mix)]) }
    }

    /// A step that looks at each token by itself.
    pub fn feed(norm: Norm, feed: Box<dyn FeedForward>) -> Step {
        Step { norm, part: Part::FeedForward(feed) }
    }

    /// What it does with `h`, before that is added. Takes a slot for each way to mix.
    fn forward(
        &self,
        h: &Array,
        sequences: &mut Sequences,
        slots: &mut impl Iterator<Item = usize>,
        ops: &dyn Ops,
    ) -> Result<Array> {
        let h = self.norm.forward(h)?;
        let mixes = match &self.part {
            Part::FeedForward(feed) => return feed.forward(&h),
            Part::TokenMixer(mixes) => mixes,
        };
        let mut mixed = mixes.iter().zip(slots).map(|(mix, slot)| mix.forward(&h, sequences, slot));
        let first = mixed.next().unwrap_or(Ok(h.clone()))?;
        mixed.try_fold(first, |sum, mixed| ops.add(&sum, &mixed?))
    }
}

impl Language for Hybrid {
    fn vocabulary(&self) -> usize {
        self.ends.vocabulary
    }

    fn cache(&self) -> Cache {
        let mixes = self.steps.iter().flat_map(|step| match &step.part {
            Part::TokenMixer(mixes) => mixes.as_slice(),
            Part::FeedForward(_) => &[],
        });
        Cache { slots: mixes.map(|mix| mix.slot()).collect() }
    }

    fn embed(&self, ids: &Array, spliced: &[Spliced]) -> Result<Inputs> {
        let h = times(self.ends.embed(ids)?, self.factors.embeddings)?;
        Ok(splice(h, spliced)?.into())
    }

    fn forward(&self, inputs: Inputs, sequences: &mut Sequences) -> Result<Array> {
        let mut h = inputs.h;
        let mut slots = 0..;
        for step in &self.steps {
            let new = step.forward(&h, sequences, &mut slots, self.ops)?;
            h = self.ops.add(&h, &times(new, self.factors.residual)?)?;
        }
        Ok(h)
    }

    fn head(&self, h: &Array) -> Result<Array> {
        self.ends.head(h)
    }
}

fn times(x: Array, factor: f32) -> Result<Array> {
    match factor {
        1.0 => Ok(x),
        factor => x.multiply(mlx::number(factor, &x)?),
    }
}
