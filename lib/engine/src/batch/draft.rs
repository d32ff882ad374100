//! Speculative decoding (arXiv 2211.17192): a small model guesses tokens, and the large one looks at
//! all guesses in one step.
//!
//! Each token is chosen as it would be without guesses, by the same random numbers, and a guess
//! counts if it is the token that was chosen. The draft model guesses by those numbers too, so it
//! guesses well also where chance decides.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};
use mlx_rs::transforms::eval;
use mlxk_tensor::array::elements;
use mlxk_tensor::cache::Sequences;

use super::parts::Part;
use super::state::{Batch, Step, Text};
use crate::forward::{Forward, ids};
use crate::sample::{Turn, host};

/// The most tokens that are guessed at once: so many can be forgotten again.
pub const MOST: usize = 16;

/// A draft model.
pub struct Draft {
    /// Forward passes of the draft model.
    pub forward: Forward,
    /// Tokens guessed at once.
    pub tokens: usize,
}

impl Batch {
    /// Takes a step in which texts may get several tokens, and waits for them.
    pub fn step_drafted(&mut self, forward: &Forward, draft: &Draft) -> Result<Step> {
        let mut parts = self.parts(None, forward.prefill_chunk);
        self.guess(&mut parts, draft, forward.vocabulary())?;
        let Some(logits) = self.forward(&parts, None, forward)? else { return Ok(Step::new()) };
        let size = logits.dim(-1) as usize;
        let mut rows = elements(&logits)?.chunks_exact(size);
        let mut step = Step::new();
        for part in parts.iter().filter(|part| part.whole) {
            let rows: Vec<&[f32]> = rows.by_ref().take(part.wanted).collect();
            self.verify(part, &rows, &mut step)?;
        }
        Ok(step)
    }

    /// Adds guesses to the tokens of the texts that get one now.
    fn guess(&mut self, parts: &mut [Part], draft: &Draft, vocabulary: usize) -> Result<()> {
        for guess in 0..draft.tokens {
            // A prompt of which more than a token was still to be seen gets no guesses yet.
            let decoding = |part: &&mut Part| {
                part.whole && part.wanted == guess + 1 && part.rows == part.wanted
            };
            for part in parts.iter_mut().filter(decoding) {
                let text = &mut self.texts[part.text];
                if text.constraint.is_some() {
                    continue;
                }
                let logits = draft.logits(text)?;
                let turn = text.turn(text.tokens.len(), None);
                let turn = Turn { number: turn.number + guess as u64, ..turn };
                let token = host::choose(elements(&logits)?, &turn);
                if let Some(token) = token.filter(|token| (token.id as usize) < vocabulary) {
                    text.tokens.push(token.id);
                    part.rows += 1;
                    part.wanted += 1;
                }
            }
        }
        Ok(())
    }

    /// Chooses the tokens of a text as long as they are those that were guessed.
    fn verify(&mut self, part: &Part, rows: &[&[f32]], step: &mut Step) -> Result<()> {
        let guesses = part.wanted - 1;
        let text = &mut self.texts[part.text];
        let guessed = text.tokens.split_off(text.tokens.len() - guesses);
        let mut right = 0;
        for (n, row) in rows.iter().enumerate() {
            let (number, token) = self.choose(part, row);
            let same = token.as_ref().is_ok_and(|token| guessed.get(n) == Some(&token.id));
            step.push((number, token));
            if !same {
                break;
            }
            right += 1;
        }
        let text = &mut self.texts[part.text];
        text.fed -= guesses - right;
        let kept = text.cache.as_mut().is_none_or(|cache| cache.forget(guesses - right));
        let kept_draft = text.draft.as_mut().is_none_or(|(cache, seen)| {
            let wrong = seen.saturating_sub(text.fed);
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
    /// The logits after all tokens of `text`.
    fn logits(&self, text: &mut Text) -> Result<Array> {
        let (cache, seen) = text.draft.get_or_insert_with(|| (self.forward.cache(), 0));
        let mut h = None;
        for chunk in text.tokens[*seen..].chunks(self.forward.prefill_chunk.max(1)) {
            let rows = chunk.len();
            h = Some((
                self.forward.forward(&ids(chunk), &[], Sequences::one(cache, rows as i32))?,
                rows - 1,
            ));
            if rows > 1 {
                eval(cache.arrays())?;
            }
        }
        *seen = text.tokens.len();
        let (h, last) = h.ok_or_else(|| Exception::custom("nothing to guess from"))?;
        self.forward.head(&h, &[last])
    }
}
