//! How the next token is chosen from the logits, all of it on the device.
//!
//! In the order of mlx-lm: the penalty on repetition, top-p, min-p, top-k, and only then the
//! temperature; the filters see the model's own probabilities.

use mlx_rs::error::Result;
use mlx_rs::ops::indexing::argmax_axis;
use mlx_rs::ops::{argsort_axis, concatenate, gt, select};
use mlx_rs::{Array, Dtype, random};
use mlxk_core::{Error, Kind};

use crate::mlx;

/// How many of the last tokens count as repetition.
const REMEMBERED: usize = 20;

/// How to choose. All values are those of the caller: there are no defaults here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; above, the flatter the more random.
    pub temperature: f32,
    /// Keep the most likely tokens that together have this probability; 1 (or 0) keeps all.
    pub top_p: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens at least this likely in proportion to the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divide (or, below zero, multiply) the logits of the last 20 tokens by this; 1 is none.
    pub repetition_penalty: f32,
    /// The same seed, prompt and settings give the same tokens.
    pub seed: u64,
}

impl Sampling {
    /// Errors if a value is out of its range, and says which.
    pub fn check(&self) -> mlxk_core::Result<()> {
        let ranges = [
            ("temperature", self.temperature, 0.0..=f32::MAX, "0 or more"),
            ("top_p", self.top_p, 0.0..=1.0, "from 0 to 1"),
            ("min_p", self.min_p, 0.0..=1.0, "from 0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                f32::MIN_POSITIVE..=f32::MAX,
                "above 0",
            ),
        ];
        match ranges.into_iter().find(|(_, value, range, _)| !range.contains(value)) {
            None => Ok(()),
            Some((name, value, _, expected)) => {
                let message = format!("cannot be {value}: it is {expected}");
                Err(Error::new(Kind::Validation, name, message))
            }
        }
    }
}

/// Chooses one token after another.
pub struct Sampler {
    sampling: Sampling,
    /// The last tokens [1, up to 20], prompt included, if repetition is penalised.
    recent: Option<Array>,
    /// Tokens chosen.
    chosen: u64,
}

impl Sampler {
    /// A sampler for the continuation of `prompt`.
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Sampler {
        let last = &prompt[prompt.len().saturating_sub(REMEMBERED)..];
        let recent = (sampling.repetition_penalty != 1.0)
            .then(|| Array::from_slice(last, &[1, last.len() as i32]));
        Sampler { sampling, recent, chosen: 0 }
    }

    /// The next token [1, 1] by its `logits` [1, vocabulary].
    pub fn choose(&mut self, logits: &Array) -> Result<Array> {
        let logits = logits.as_dtype(Dtype::Float32)?;
        let logits = match &self.recent {
            Some(recent) => penalise(&logits, recent, self.sampling.repetition_penalty)?,
            None => logits,
        };
        let token = match self.sampling.temperature {
            0.0 => argmax_axis(&logits, -1, true)?,
            temperature => {
                let kept = self.filter(logits)?.multiply(Array::from_f32(1.0 / temperature))?;
                random::categorical(&kept, -1, None, &self.key()?)?.reshape(&[1, 1])?
            }
        };
        self.chosen += 1;
        self.remember(&token)?;
        Ok(token)
    }

    /// The logarithms of the probabilities, those that are not kept at minus infinity.
    fn filter(&self, logits: Array) -> Result<Array> {
        let Sampling { top_p, top_k, min_p, .. } = self.sampling;
        let mut kept = logits.subtract(logits.logsumexp_axis(-1, true)?)?;
        if top_p > 0.0 && top_p < 1.0 {
            kept = keep_top_p(&kept, top_p)?;
        }
        if min_p > 0.0 {
            let least = kept.max_axis(-1, true)?.add(Array::from_f32(min_p.ln()))?;
            kept = keep_from(&kept, &least)?;
        }
        if top_k > 0 && (top_k as i64) < i64::from(kept.dim(-1)) {
            kept = keep_top_k(&kept, top_k as i32)?;
        }
        Ok(kept)
    }

    /// A random key of its own for each token of each seed.
    fn key(&self) -> Result<Array> {
        random::key(mixed(mixed(self.sampling.seed).wrapping_add(self.chosen)))
    }

    fn remember(&mut self, token: &Array) -> Result<()> {
        if let Some(recent) = &mut self.recent {
            let all = concatenate(
                &[recent.as_dtype(Dtype::Uint32)?, token.as_dtype(Dtype::Uint32)?],
                -1,
            )?;
            let excess = (all.dim(-1) - REMEMBERED as i32).max(0);
            *recent = mlx::columns(&all, excess..all.dim(-1))?;
        }
        Ok(())
    }
}

/// Makes the tokens of `recent` less likely.
fn penalise(logits: &Array, recent: &Array, penalty: f32) -> Result<Array> {
    let own = logits.take_along_axis(recent, -1)?;
    let penalty = Array::from_f32(penalty);
    let below = own.lt(Array::from_f32(0.0))?;
    let less = select(below, own.multiply(&penalty)?, own.divide(&penalty)?)?;
    logits.put_along_axis(recent, less, -1)
}

/// Keeps the most likely tokens up to and with the one at which their probabilities reach `p`.
fn keep_top_p(logits: &Array, p: f32) -> Result<Array> {
    let order = argsort_axis(logits.negative()?, -1)?;
    let sorted = logits.take_along_axis(&order, -1)?;
    let before = sorted.exp()?.cumsum(-1, None, false)?;
    let dropped = before.ge(Array::from_f32(p))?;
    let kept = select(dropped, Array::from_f32(f32::NEG_INFINITY), sorted)?;
    logits.put_along_axis(order, kept, -1)
}

/// Keeps the `k` most likely tokens, no more if some are equally likely.
fn keep_top_k(logits: &Array, k: i32) -> Result<Array> {
    let order = argsort_axis(logits.negative()?, -1)?;
    let rest = mlx::columns(&order, k..order.dim(-1))?;
    logits.put_along_axis(rest, Array::from_f32(f32::NEG_INFINITY), -1)
}

fn keep_from(logits: &Array, least: &Array) -> Result<Array> {
    select(gt(least, logits)?, Array::from_f32(f32::NEG_INFINITY), logits)
}

/// Spreads neighbouring numbers (SplitMix64's finisher), so that near seeds share no keys.
fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
