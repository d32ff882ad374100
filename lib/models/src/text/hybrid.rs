//! Model as a list of residual blocks `h + part(norm(h))`.
//!
//! A layer is two blocks, one of attention or state space and one of feed-forward; the architecture
//! decides on their order.

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;
use mlxk_tensor::ops::Ops;

use crate::language::{Inputs, Language, Spliced, splice};
use crate::nn::embed_head::EmbedHead;
use crate::nn::mixer::{FeedForward, TokenMixer};
use crate::nn::norm::Norm;

/// Model of residual blocks with scale factors.
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

/// Scale factors of a model.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// Scale of token embeddings.
    pub embeddings: f32,
    /// Scale of the output of a block before the residual addition.
    pub residual: f32,
}

/// `h + part(norm(h))`.
pub struct Step {
    /// Norm of the block's input.
    pub norm: Norm,
    /// Mixer or feed-forward layer of the block.
    pub part: Part,
}

/// Layer of a residual block.
pub enum Part {
    /// Token mixers, such as attention or a state space, whose outputs are summed.
    TokenMixer(Vec<Box<dyn TokenMixer>>),
    /// Feed-forward layer, which treats each token independently.
    FeedForward(Box<dyn FeedForward>),
}

impl Factors {
    /// Factors of one, which scale nothing.
    pub const NONE: Factors = Factors { embeddings: 1.0, residual: 1.0 };
}

impl Step {
    /// Block with a single token mixer.
    pub fn mix(norm: Norm, mix: impl TokenMixer + 'static) -> Step {
        Step { norm, part: Part::TokenMixer(vec![Box::new(mix)]) }
    }

    /// Block with a feed-forward layer.
    pub fn feed(norm: Norm, feed: Box<dyn FeedForward>) -> Step {
        Step { norm, part: Part::FeedForward(feed) }
    }

    /// Output of the block for hidden states `h`, before the residual addition. Takes a cache slot
    /// from `slots` for each token mixer.
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
