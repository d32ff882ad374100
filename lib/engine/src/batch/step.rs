//! Steps of a batch: sequences join and leave between any two.
//!
//! A step advances every sequence that is decoded by a token, and prefills as much of the prompts of
//! the others as fits, all in one pass through the weights. How much fits is measured: prompts make a
//! step little longer than its tokens alone would (stall-free batching, arXiv 2403.02310). On a GPU the
//! next step is queued before the tokens of the last one are read.

use std::ops::Range;
use std::time::{Duration, Instant};

use mlx_rs::error::Result;
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, memory};
use mlxk_core::{Error, Kind};
use mlxk_models::language::Spliced;
use mlxk_models::vision::Features;
use mlxk_processor::Token;
use mlxk_tensor::array::elements;
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;
use mlxk_tensor::positions::RowPositions;

use super::chunks::{Chunk, joined, known, queued};
use super::draft::Draft;
use super::shares::rows_alone;
use super::state::{Batch, Queued, Sequence, Step};
use crate::forward::Forward;
use crate::prefill::Prefill;
use crate::prefix_cache::Key;
use crate::sample::{device, host};

/// Number of steps after which the buffers that MLX holds for reuse are freed.
const TIDY: u64 = 256;

/// Number of shared tokens that are worth waiting until another sequence has prefilled them.
const SAVING: usize = 16;

impl Batch {
    /// Key and cache of the sequence that was over last.
    pub fn last_over(&self) -> Option<&(Key, Cache)> {
        self.prefix_cache.last()
    }

    /// Adds the cache of a sequence to the prefix cache, which may take `bytes`.
    pub fn remember(&mut self, key: Key, cache: Cache, bytes: u64) {
        self.prefix_cache.put(key, cache, bytes);
    }

    /// Takes a step, with the guesses of `draft` if there is one; `prefill` bounds the rows of prompts.
    ///
    /// # Errors
    /// If the model fails.
    pub fn step(
        &mut self,
        forward: &Forward,
        draft: Option<&Draft>,
        prefill: Prefill,
    ) -> Result<Step> {
        let started = Instant::now();
        self.steps += 1;
        if self.steps.is_multiple_of(TIDY) {
            memory::clear_cache()?;
        }
        self.assign_caches(forward);
        let budget = self.budget(prefill, forward);
        let step = match draft {
            Some(draft) => self.step_drafted(forward, draft, budget),
            None if forward.ahead => self.step_ahead(forward, budget),
            None => self.step_at_once(forward, budget),
        }?;
        // What is queued only takes its time in the next step; caches of incomplete prompts are computed.
        let done = !forward.ahead || self.work.partial;
        self.pace.record(self.work, started.elapsed(), done, forward.rows_at_once);
        Ok(step)
    }

    /// Rows of prompts in the next step.
    fn budget(&self, prefill: Prefill, forward: &Forward) -> usize {
        let most = forward.prefill_chunk.max(1);
        match prefill {
            Prefill::Chunk => most,
            Prefill::Fair { streams: None } => 0,
            Prefill::Fair { streams: Some(Duration::ZERO) } => {
                let left: Vec<usize> = self.prompts().map(|(_, left)| left).collect();
                rows_alone(&left, most)
            }
            Prefill::Fair { streams: Some(time) } => {
                self.pace.rows(time, self.decoding(), forward.rows_at_once).min(most)
            }
        }
    }

    /// Takes a step whose tokens are read in the next one.
    fn step_ahead(&mut self, forward: &Forward, budget: usize) -> Result<Step> {
        let due = self.queued.take();
        let pending = due.is_some();
        let step = self.launch(due, forward, budget)?;
        match self.queued.take() {
            // Other prompts would keep the first token waiting.
            Some(first) if !pending => {
                let rows = self.work.rows;
                let step = self.launch(Some(first), forward, 0)?;
                self.work.rows = rows;
                Ok(step)
            }
            queued => {
                self.queued = queued;
                Ok(step)
            }
        }
    }

    /// Gives new sequences their caches: copies of those that hold the beginning of their prompts, or
    /// empty ones. A sequence whose beginning an earlier one is prefilling waits for that.
    fn assign_caches(&mut self, forward: &Forward) {
        for place in 0..self.sequences.len() {
            let (earlier, rest) = self.sequences.split_at(place);
            let sequence = &rest[0];
            if sequence.cache.is_some() {
                continue;
            }
            let key = sequence.key();
            let complete = key.tokens.len() - 1;
            let shared = |other: &Sequence| {
                let forgets = other.cache.as_ref().is_none_or(Cache::forgets);
                if forgets { other.key().up_to(&key, complete) } else { 0 }
            };
            let other = earlier.iter().max_by_key(|other| shared(other));
            let beside = other.map_or(0, shared);
            let remembered = self.prefix_cache.shared(&key);
            if beside > remembered + SAVING && other.is_some_and(|other| other.fed < beside) {
                continue;
            }
            let from_other = other.filter(|_| beside > remembered).and_then(|other| {
                let (mut cache, known) = (other.cache.clone()?, beside.min(other.fed));
                cache.forget(other.fed - known).then_some((cache, known))
            });
            let found = from_other.or_else(|| self.prefix_cache.take(&key));
            let (mut cache, reused) = found.unwrap_or_else(|| (forward.cache(), 0));
            let sequence = &mut self.sequences[place];
            cache.set_blocks(&sequence.blocks);
            (sequence.cache, sequence.reused, sequence.fed) = (Some(cache), reused, reused);
        }
    }

    /// Takes a step, and samples its tokens on the host.
    fn step_at_once(&mut self, forward: &Forward, budget: usize) -> Result<Step> {
        let chunks = self.chunks(None, budget);
        let Some(logits) = self.forward(&chunks, None, forward)? else { return Ok(Step::new()) };
        let rows: &[f32] = elements(&logits)?;
        let size = logits.dim(-1) as usize;
        let complete = chunks.iter().filter(|chunk| chunk.complete);
        Ok(rows
            .chunks_exact(size)
            .zip(complete)
            .map(|(row, chunk)| self.choose(chunk, row))
            .collect())
    }

    /// Samples the next token of the sequence of `chunk` by `logits` [vocabulary], and returns it with
    /// the number of the sequence.
    pub fn choose(&mut self, chunk: &Chunk, logits: &[f32]) -> (u64, mlxk_core::Result<Token>) {
        let sequence = &mut self.sequences[chunk.sequence];
        let none = || Error::new(Kind::Execution, "", "no token may come next");
        let chosen = sequence.allowed().and_then(|allowed| {
            let draw = sequence.draw(sequence.tokens.len(), allowed);
            host::choose(logits, &draw).ok_or_else(none)
        });
        sequence.chosen += 1;
        (sequence.number, chosen.and_then(|token| sequence.push(token)))
    }

    /// Queues the step after the tokens of `due`, and returns these tokens.
    fn launch(
        &mut self,
        mut due: Option<Queued>,
        forward: &Forward,
        budget: usize,
    ) -> Result<Step> {
        let chunks = self.chunks(due.as_ref(), budget);
        let Some(logits) = self.forward(&chunks, due.as_ref(), forward)? else {
            return self.read(due);
        };
        let last = self.last(&chunks, due.as_ref())?;
        let complete: Vec<usize> =
            chunks.iter().filter(|p| p.complete).map(|p| p.sequence).collect();
        let mut step = Step::new();
        if complete.iter().any(|&sequence| self.sequences[sequence].needs_last()) {
            // The last tokens are needed on the host; they are read while the device runs the model.
            async_eval([&logits])?;
            step = self.read(due.take())?;
        }
        let mut allowed = Vec::new();
        for &sequence in &complete {
            let sequence = &mut self.sequences[sequence];
            allowed.push(sequence.allowed().unwrap_or_else(|e| {
                step.push((sequence.number, Err(e)));
                None
            }));
        }
        let sequences = complete.iter().map(|&sequence| &self.sequences[sequence]);
        let draws = sequences
            .zip(allowed)
            .map(|(sequence, allowed)| sequence.draw(sequence.fed - 1, allowed));
        let sampled = device::choose(&logits, &draws.collect::<Vec<_>>(), Some(&last))?;
        async_eval(sampled.arrays())?;
        complete.iter().for_each(|&sequence| self.sequences[sequence].chosen += 1);
        let sequences = complete.iter().map(|&sequence| self.sequences[sequence].number).collect();
        self.queued = Some(Queued { sampled, sequences });
        step.extend(self.read(due)?);
        Ok(step)
    }

    /// Waits for the queued tokens, and appends them to the sequences that have not left.
    fn read(&mut self, due: Option<Queued>) -> Result<Step> {
        let Some(Queued { sampled, sequences }) = due else { return Ok(Step::new()) };
        let place =
            |number: &u64| self.sequences.iter().position(|sequence| sequence.number == *number);
        let places: Vec<Option<usize>> = sequences.iter().map(place).collect();
        let count = |place: &Option<usize>| self.sequences[(*place)?].sampling.logprobs;
        let tokens = sampled.read(places.iter().map(count))?;
        let mut step = Step::new();
        for (place, token) in places.into_iter().zip(tokens) {
            if let Some(place) = place {
                let sequence = &mut self.sequences[place];
                step.push((sequence.number, sequence.push(token)));
            }
        }
        Ok(step)
    }

    /// Runs the model on `chunks`. The logits [rows, vocabulary] follow the wanted tokens of complete
    /// chunks; `None` if there are none. The caches of incomplete chunks are computed, not queued.
    pub fn forward(
        &mut self,
        chunks: &[Chunk],
        due: Option<&Queued>,
        forward: &Forward,
    ) -> Result<Option<Array>> {
        if chunks.is_empty() {
            return Ok(None);
        }
        let bring = |chunk: &Chunk| {
            let sequence = &self.sequences[chunk.sequence];
            sequence.tokens.iter().skip(sequence.fed).take(chunk.rows).copied()
        };
        let known: Vec<u32> = known(chunks).flat_map(bring).collect();
        let ids = joined(due.zip(queued(chunks)), &known, -1)?;
        let mut sequences: Vec<Option<&mut Sequence>> =
            self.sequences.iter_mut().map(Some).collect();
        let (mut brought, mut spliced, mut placed) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for chunk in chunks {
            let Some(sequence) = sequences[chunk.sequence].take() else { continue };
            spliced.extend(splice(sequence, chunk.rows, first, forward)?);
            first += chunk.rows;
            let delta = sequence.positions.as_ref().map_or(0, |own| own.delta);
            placed.push((sequence.next_positions(chunk.rows), delta));
            if let Sequence { cache: Some(cache), fed, .. } = sequence {
                *fed += chunk.rows;
                brought.push((cache, chunk.rows as i32));
            }
        }
        let mut sequences = Sequences::new(brought);
        if placed.iter().any(|(rows, delta)| rows.is_some() || *delta != 0) {
            let own = placed.iter();
            let own =
                own.map(|(rows, delta)| RowPositions { rows: rows.as_deref(), delta: *delta });
            sequences = sequences.positioned(own.collect());
        }
        let h = forward.forward(&ids, &spliced, sequences)?;
        let mut end = 0;
        let ends = chunks.iter().flat_map(|chunk| {
            end += chunk.rows;
            end - if chunk.complete { chunk.wanted } else { 0 }..end
        });
        let ends: Vec<usize> = ends.collect();
        let logits = (!ends.is_empty()).then(|| forward.head(&h, &ends)).transpose()?;
        let partial = chunks.iter().filter(|chunk| !chunk.complete);
        let arrays: Vec<&Array> = partial
            .filter_map(|chunk| self.sequences[chunk.sequence].cache.as_ref())
            .flat_map(Cache::arrays)
            .collect();
        if !arrays.is_empty() {
            eval(arrays)?;
            memory::clear_cache()?;
        }
        Ok(logits)
    }
}

/// Features of pictures among the next `rows` tokens of `sequence`, which begin at token `first` of
/// the step. Features of a picture that ends here are not kept.
fn splice(
    sequence: &mut Sequence,
    rows: usize,
    first: usize,
    forward: &Forward,
) -> Result<Vec<Spliced>> {
    let next = sequence.fed..sequence.fed + rows;
    let mut spliced = Vec::new();
    for (media, kept) in sequence.media.iter().zip(&mut sequence.features) {
        if media.tokens.start >= next.end || media.tokens.end <= next.start {
            continue;
        }
        let features = match kept.take() {
            Some(features) => features,
            None => forward.features(media)?,
        };
        let mut before = 0;
        for run in &media.runs {
            let own = run.start.max(next.start)..run.end.min(next.end);
            if !own.is_empty() {
                let span = before + own.start - run.start..before + own.end - run.start;
                let at = first + own.start - next.start;
                spliced.push(part(&features, span, at as i32..(at + own.len()) as i32)?);
            }
            before += run.len();
        }
        *kept = Some(features).filter(|_| next.end < media.tokens.end);
    }
    Ok(spliced)
}

/// Features `span` of a picture for these `rows` of a step.
fn part(features: &Features, span: Range<usize>, rows: Range<i32>) -> Result<Spliced> {
    let span = span.start as i32..span.end as i32;
    let part = |all: &Array| mlx::entries(all, span.clone());
    let deep = features.deep.iter().map(part).collect::<Result<_>>()?;
    Ok(Spliced { rows, features: part(&features.rows)?, deep })
}
