//! Speculative decoding (arXiv 2211.17192): a small model guesses tokens, and the large one looks at
//! all guesses in one step.
//!
//! Each token is chosen as it would be without guesses, by the same random numbers, and a guess
//! is accepted if it is the token that was chosen. The draft model guesses by those numbers too, so
//! its guesses are good at high temperatures as well.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::transforms::eval;
use mlxk_tensor::array::elements;
use mlxk_tensor::cache::Sequences;

use super::chunks::Chunk;
use super::state::{Batch, Sequence, Step};
use crate::forward::{Forward, ids};
use crate::sample::{Draw, host};

/// Most tokens that are guessed at once: caches can drop so many again.
pub const MOST: usize = 16;

/// Draft model, which guesses tokens of a larger model.
pub struct Draft {
    /// Forward passes of the draft model.
    pub forward: Forward,
    /// Number of tokens that are guessed at once.
    pub tokens: usize,
}

impl Batch {
    /// Takes a step in which sequences may get several tokens, and waits for these; prompts have `budget`
    /// rows.
    pub fn step_drafted(
        &mut self,
        forward: &Forward,
        draft: &Draft,
        budget: usize,
    ) -> Result<Step> {
        let mut chunks = self.chunks(None, budget);
        self.guess(&mut chunks, draft, forward.vocabulary())?;
        let Some(logits) = self.forward(&chunks, None, forward)? else { return Ok(Step::new()) };
        let size = logits.dim(-1) as usize;
        let mut rows = elements(&logits)?.chunks_exact(size);
        let mut step = Step::new();
        for chunk in chunks.iter().filter(|chunk| chunk.complete) {
            let rows: Vec<&[f32]> = rows.by_ref().take(chunk.wanted).collect();
            self.verify(chunk, &rows, &mut step)?;
        }
        Ok(step)
    }

    /// Extends complete chunks by the guesses of `draft`. Guesses outside the `vocabulary` of the model
    /// end those of their sequence.
    fn guess(&mut self, chunks: &mut [Chunk], draft: &Draft, vocabulary: usize) -> Result<()> {
        for guess in 0..draft.tokens {
            // A chunk that ends a longer piece of prompt is prefill, which guesses do not speed up.
            let decoding = |chunk: &&mut Chunk| {
                chunk.complete && chunk.wanted == guess + 1 && chunk.rows == chunk.wanted
            };
            for chunk in chunks.iter_mut().filter(decoding) {
                let sequence = &mut self.sequences[chunk.sequence];
                if sequence.constraint.is_some() {
                    continue;
                }
                let logits = draft.logits(sequence)?;
                let draw = sequence.draw(sequence.tokens.len(), None);
                let draw = Draw { number: draw.number + guess as u64, ..draw };
                let token = host::choose(elements(&logits)?, &draw);
                if let Some(token) = token.filter(|token| (token.id as usize) < vocabulary) {
                    sequence.tokens.push(token.id);
                    chunk.rows += 1;
                    chunk.wanted += 1;
                }
            }
        }
        Ok(())
    }

    /// Samples the tokens of a sequence by `rows` of logits until one differs from its guess, and drops
    /// the wrong guesses from its caches.
    fn verify(&mut self, chunk: &Chunk, rows: &[&[f32]], step: &mut Step) -> Result<()> {
        let guesses = chunk.wanted - 1;
        let sequence = &mut self.sequences[chunk.sequence];
        let guessed = sequence.tokens.split_off(sequence.tokens.len() - guesses);
        let mut right = 0;
        for (n, row) in rows.iter().enumerate() {
            let (number, token) = self.choose(chunk, row);
            let same = token.as_ref().is_ok_and(|token| guessed.get(n) == Some(&token.id));
            step.push((number, token));
            if !same {
                break;
            }
            right += 1;
        }
        let sequence = &mut self.sequences[chunk.sequence];
        sequence.fed -= guesses - right;
        let kept = sequence.cache.as_mut().is_none_or(|cache| cache.forget(guesses - right));
        let kept_draft = sequence.draft.as_mut().is_none_or(|(cache, seen)| {
            let wrong = seen.saturating_sub(sequence.fed);
            *seen -= wrong;
            cache.forget(wrong)
        });
        match kept && kept_draft {
            true => Ok(()),
            false => Err("a guess cannot be forgotten".into()),
        }
    }
}

impl Draft {
    /// Logits [1, vocabulary] of the draft model after all tokens of `sequence`.
    fn logits(&self, sequence: &mut Sequence) -> Result<Array> {
        let (cache, seen) = sequence.draft.get_or_insert_with(|| (self.forward.cache(), 0));
        let mut h = None;
        for chunk in sequence.tokens[*seen..].chunks(self.forward.prefill_chunk.max(1)) {
            let rows = chunk.len();
            h = Some((
                self.forward.forward(&ids(chunk), &[], Sequences::one(cache, rows as i32))?,
                rows - 1,
            ));
            if rows > 1 {
                eval(cache.arrays())?;
            }
        }
        *seen = sequence.tokens.len();
        let (h, last) = h.ok_or_else(|| Exception::custom("nothing to guess from"))?;
        self.forward.head(&h, &[last])
    }
}
