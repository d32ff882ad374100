//! Model in memory: forward passes of its network, and the sequences that it continues.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mlxk_core::{Error, Kind};
use mlxk_processor::{Constraint, Media, Sampling, Token};

use crate::batch::{Batch, Draft, MOST, Sequence, Step};
use crate::forward::Forward;
use crate::prefill::Prefill;

/// A model in memory, with the sequences that it continues. It stays on the thread that loaded it.
pub struct Model {
    /// Forward passes of the model's network.
    pub forward: Forward,
    /// Sequences that the model continues.
    pub(crate) batch: Batch,
    draft: Option<Draft>,
}

impl Model {
    /// A model without any sequence.
    pub fn new(forward: Forward) -> Model {
        Model { forward, batch: Batch::default(), draft: None }
    }

    /// Length of the sequences that the model was trained on, in tokens, if that is known.
    pub fn context_length(&self) -> Option<u64> {
        self.forward.context_length()
    }

    /// Number of tokens that the model knows; ids are below this.
    pub fn vocabulary(&self) -> usize {
        self.forward.vocabulary()
    }

    /// Logits of the token that follows `prompt`, one for each token that the model knows.
    ///
    /// # Errors
    /// If the prompt is empty or holds ids that the model does not know, or the model fails.
    pub fn logits(&mut self, prompt: &[u32]) -> mlxk_core::Result<Vec<f32>> {
        self.forward.logits(prompt)
    }

    /// The model with `draft`, a draft model with the same tokens, which guesses `tokens` at a time.
    ///
    /// # Errors
    /// If `tokens` is not from 1 to 16, or the cache of a model cannot drop its last tokens.
    pub fn guided_by(mut self, draft: Model, tokens: usize) -> mlxk_core::Result<Model> {
        if tokens == 0 || tokens > MOST {
            let message = format!("`num_draft_tokens` is not a whole number from 1 to {MOST}");
            return Err(Error::new(Kind::Validation, "", message));
        }
        for (model, which) in [(&self, "the model"), (&draft, "the draft model")] {
            if !model.forward.cache().forgets() {
                let message =
                    format!("{which} remembers states, which cannot go back over guesses");
                return Err(Error::new(Kind::CapabilityNotSupported, "", message));
            }
        }
        self.draft = Some(Draft { forward: draft.forward, tokens });
        Ok(self)
    }

    /// Tokens that follow `prompt`, one by one.
    ///
    /// # Errors
    /// As [`join`](Model::join).
    pub fn tokens(&mut self, prompt: &[u32], sampling: &Sampling) -> mlxk_core::Result<Tokens<'_>> {
        let sequence = self.join(prompt, sampling.clone(), None)?;
        Ok(Tokens { model: self, sequence, ready: Vec::new() })
    }

    /// Adds a sequence that begins with `prompt`, and returns its number. Its first token comes from one
    /// of the next steps.
    ///
    /// # Errors
    /// If the prompt is empty or holds ids that the model does not know, or `sampling` makes no
    /// sense.
    pub fn join(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> mlxk_core::Result<u64> {
        self.join_media(prompt, &[], sampling, constraint)
    }

    /// Adds a sequence that begins with `prompt`, of which some tokens stand for pictures; otherwise
    /// like [`join`](Model::join).
    ///
    /// # Errors
    /// As [`join`](Model::join), and if the model takes no pictures.
    pub fn join_media(
        &mut self,
        prompt: &[u32],
        media: &[Media],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> mlxk_core::Result<u64> {
        self.forward.check(prompt)?;
        let positions = match (media, &self.forward.tower) {
            ([], _) => None,
            (media, Some(tower)) => tower.positions(prompt, media)?,
            (_, None) => return Err(Error::unsupported("the model takes no pictures")),
        };
        sampling.check()?;
        let vocabulary = self.vocabulary();
        if let Some((id, _)) = sampling.logit_bias.iter().find(|(id, _)| *id as usize >= vocabulary)
        {
            let message = format!("`logit_bias` names token {id}, the model knows {vocabulary}");
            return Err(Error::new(Kind::Validation, "", message));
        }
        self.batch.joined += 1;
        self.batch.sequences.push(Sequence {
            number: self.batch.joined,
            cache: None,
            reused: 0,
            draft: None,
            tokens: prompt.to_vec(),
            media: media.to_vec(),
            features: vec![None; media.len()],
            blocks: blocks(media),
            positions,
            fed: 0,
            sampling,
            chosen: 0,
            constraint,
        });
        Ok(self.batch.joined)
    }

    /// Removes a sequence, and keeps its cache for prompts that begin like it.
    pub fn leave(&mut self, number: u64) {
        let batch = &mut self.batch;
        let Some(place) = batch.sequences.iter().position(|sequence| sequence.number == number)
        else {
            return;
        };
        let sequence = batch.sequences.remove(place);
        let mut key = sequence.key();
        // The cache may hold a queued token that is not read: its id is not known.
        let unknown = sequence.fed.saturating_sub(key.tokens.len());
        let known = sequence.fed.min(key.tokens.len());
        let within = |(tokens, _): &(Range<usize>, _)| tokens.start < known && known < tokens.end;
        // A prefix that ends within a picture cannot be shared.
        let cut = key.media.iter().any(within);
        key.truncate(known);
        if let Some(mut cache) = sequence.cache
            && cache.forget(unknown)
            && !key.tokens.is_empty()
            && !cut
        {
            batch.prefix_cache.put(key, cache, self.forward.cache_options.prefix_bytes);
        }
    }

    /// Shrinks the prefix cache to `bytes`, and limits it to that from now on.
    pub fn limit_prefix_cache(&mut self, bytes: u64) {
        self.forward.cache_options.prefix_bytes = bytes;
        self.batch.prefix_cache.shrink(bytes);
    }

    /// Bytes of the prefix cache.
    pub fn prefix_bytes(&self) -> u64 {
        self.batch.prefix_cache.bytes()
    }

    /// Number of tokens of a sequence's prompt that came from a cache; 0 if there is no such sequence.
    pub fn reused(&self, number: u64) -> u64 {
        let sequence = self.batch.sequences.iter().find(|sequence| sequence.number == number);
        sequence.map_or(0, |sequence| sequence.reused as u64)
    }

    /// Time of a step without prompts; zero if no sequence has a token yet, `None` if it is not known.
    pub fn decode_time(&self) -> Option<Duration> {
        self.batch.pace.decoding(self.batch.decoding())
    }

    /// True if prompts are not prefilled yet.
    pub fn prefills(&self) -> bool {
        self.batch.sequences.iter().any(|sequence| sequence.chosen == 0)
    }

    /// Takes a step with a whole chunk of prompts, and returns its tokens, each with the number of its
    /// sequence. A sequence whose prompt is not prefilled yet gets none. An error instead of a token ends
    /// its sequence.
    ///
    /// # Errors
    /// If the model fails, which ends all sequences.
    pub fn step(&mut self) -> mlxk_core::Result<Step> {
        self.step_with(Prefill::Chunk)
    }

    /// Takes a step like [`step`](Self::step), with as many rows of prompts as `prefill` allows.
    ///
    /// # Errors
    /// If the model fails, which ends all sequences.
    pub fn step_with(&mut self, prefill: Prefill) -> mlxk_core::Result<Step> {
        let mut batch = std::mem::take(&mut self.batch);
        let step = self.forward.run(|| batch.step(&self.forward, self.draft.as_ref(), prefill));
        let failed = |sequence: &Sequence| match &step {
            Ok(step) => {
                step.iter().any(|(number, token)| *number == sequence.number && token.is_err())
            }
            Err(_) => true,
        };
        batch.sequences.retain(|sequence| !failed(sequence));
        batch.queued = batch.queued.take().filter(|_| step.is_ok());
        self.batch = batch;
        step
    }
}

/// Places of the tokens of pictures.
fn blocks(media: &[Media]) -> Arc<[Range<i32>]> {
    let runs = media.iter().flat_map(|media| &media.runs);
    runs.map(|run| run.start as i32..run.end as i32).collect()
}

/// Tokens after a prompt, without end. Dropping this removes the sequence.
pub struct Tokens<'m> {
    model: &'m mut Model,
    sequence: u64,
    ready: Vec<mlxk_core::Result<Token>>,
}

impl Iterator for Tokens<'_> {
    type Item = mlxk_core::Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            match self.model.step() {
                Ok(tokens) => self.ready.extend(tokens.into_iter().map(|(_, token)| token)),
                Err(e) => return Some(Err(e)),
            }
        }
        Some(self.ready.remove(0).map(|token| token.id))
    }
}

impl Drop for Tokens<'_> {
    fn drop(&mut self) {
        self.model.leave(self.sequence);
    }
}
