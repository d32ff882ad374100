//! Steps of a batch: sequences join and leave between any two.
//!
//! A step advances every sequence that is being continued by a token, and takes in as much of the
//! prompts of the others as fits, all in one pass through the weights. On a GPU the next step is
//! queued before the tokens of the last one are read.

use mlx_rs::error::Result;
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, memory};
use mlxk_core::{Error, Kind};
use mlxk_models::language::Spliced;
use mlxk_processor::Token;
use mlxk_tensor::array::elements;
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;
use mlxk_tensor::positions::RowPositions;

use super::draft::Draft;
use super::parts::{Part, joined, known, queued};
use super::state::{Batch, Queued, Step, Text};
use crate::forward::Forward;
use crate::prefix_cache::Key;
use crate::sample::{device, host};

/// Steps after which MLX gives the memory back that it keeps for reuse.
const TIDY: u64 = 256;

/// Tokens that are worth waiting for another text to take them in.
const SAVING: usize = 16;

impl Batch {
    /// What is remembered of the text that was over last.
    pub fn last_over(&self) -> Option<&(Key, Cache)> {
        self.prefixes.last()
    }

    /// Remembers a text for others that begin alike.
    pub fn remember(&mut self, key: Key, cache: Cache, bytes: u64) {
        self.prefixes.put(key, cache, bytes);
    }

    /// Takes a step, with the guesses of `draft` if there is one.
    pub fn step(&mut self, forward: &Forward, draft: Option<&Draft>) -> Result<Step> {
        self.steps += 1;
        if self.steps.is_multiple_of(TIDY) {
            memory::clear_cache()?;
        }
        self.begin(forward);
        if let Some(draft) = draft {
            return self.step_drafted(forward, draft);
        }
        if !forward.ahead {
            return self.step_at_once(forward);
        }
        let due = self.queued.take();
        let begun = due.is_some();
        let step = self.launch(due, forward)?;
        match self.queued.take() {
            Some(first) if !begun => self.launch(Some(first), forward),
            queued => {
                self.queued = queued;
                Ok(step)
            }
        }
    }

    /// Gives texts their caches: what is remembered of the beginning of their prompts. One whose
    /// beginning an earlier text is just taking in waits for that.
    fn begin(&mut self, forward: &Forward) {
        for place in 0..self.texts.len() {
            let (earlier, rest) = self.texts.split_at(place);
            let text = &rest[0];
            if text.cache.is_some() {
                continue;
            }
            let key = text.key();
            let whole = key.tokens.len() - 1;
            let shared = |other: &Text| {
                let forgets = other.cache.as_ref().is_none_or(Cache::forgets);
                if forgets { other.key().up_to(&key, whole) } else { 0 }
            };
            let other = earlier.iter().max_by_key(|other| shared(other));
            let beside = other.map_or(0, shared);
            let remembered = self.prefixes.shared(&key);
            if beside > remembered + SAVING && other.is_some_and(|other| other.fed < beside) {
                continue;
            }
            let from_other = other.filter(|_| beside > remembered).and_then(|other| {
                let (mut cache, known) = (other.cache.clone()?, beside.min(other.fed));
                cache.forget(other.fed - known).then_some((cache, known))
            });
            let found = from_other.or_else(|| self.prefixes.take(&key));
            let (cache, reused) = found.unwrap_or_else(|| (forward.cache(), 0));
            let text = &mut self.texts[place];
            (text.cache, text.reused, text.fed) = (Some(cache), reused, reused);
        }
    }

    /// Takes a step, and waits for its tokens.
    fn step_at_once(&mut self, forward: &Forward) -> Result<Step> {
        let parts = self.parts(None, forward.prefill_chunk);
        let Some(logits) = self.forward(&parts, None, forward)? else { return Ok(Step::new()) };
        let rows: &[f32] = elements(&logits)?;
        let size = logits.dim(-1) as usize;
        let whole = parts.iter().filter(|part| part.whole);
        Ok(rows.chunks_exact(size).zip(whole).map(|(row, part)| self.choose(part, row)).collect())
    }

    /// The next token of a text by the `logits` of all tokens.
    pub fn choose(&mut self, part: &Part, logits: &[f32]) -> (u64, mlxk_core::Result<Token>) {
        let text = &mut self.texts[part.text];
        let none = || Error::new(Kind::Execution, "", "no token may come next");
        let chosen = text.allowed().and_then(|allowed| {
            let turn = text.turn(text.tokens.len(), allowed);
            host::choose(logits, &turn).ok_or_else(none)
        });
        text.chosen += 1;
        (text.number, chosen.and_then(|token| text.push(token)))
    }

    /// Queues the step after `due`, and returns the tokens of that.
    fn launch(&mut self, mut due: Option<Queued>, forward: &Forward) -> Result<Step> {
        let parts = self.parts(due.as_ref(), forward.prefill_chunk);
        let Some(logits) = self.forward(&parts, due.as_ref(), forward)? else {
            return self.read(due);
        };
        let last = self.last(&parts, due.as_ref())?;
        let whole: Vec<usize> = parts.iter().filter(|p| p.whole).map(|p| p.text).collect();
        let mut step = Step::new();
        if whole.iter().any(|&text| self.texts[text].needs_last()) {
            // What may come depends on what came, which is read while the model works.
            async_eval([&logits])?;
            step = self.read(due.take())?;
        }
        let mut allowed = Vec::new();
        for &text in &whole {
            let text = &mut self.texts[text];
            allowed.push(text.allowed().unwrap_or_else(|e| {
                step.push((text.number, Err(e)));
                None
            }));
        }
        let texts = whole.iter().map(|&text| &self.texts[text]);
        let turns = texts.zip(allowed).map(|(text, allowed)| text.turn(text.fed - 1, allowed));
        let choice = device::choose(&logits, &turns.collect::<Vec<_>>(), Some(&last))?;
        async_eval(choice.arrays())?;
        whole.iter().for_each(|&text| self.texts[text].chosen += 1);
        let texts = whole.iter().map(|&text| self.texts[text].number).collect();
        self.queued = Some(Queued { choice, texts });
        step.extend(self.read(due)?);
        Ok(step)
    }

    /// Waits for tokens that are queued, and adds them to the texts that are still there.
    fn read(&mut self, due: Option<Queued>) -> Result<Step> {
        let Some(Queued { choice, texts }) = due else { return Ok(Step::new()) };
        let place = |number: &u64| self.texts.iter().position(|text| text.number == *number);
        let places: Vec<Option<usize>> = texts.iter().map(place).collect();
        let wish = |place: &Option<usize>| self.texts[(*place)?].sampling.logprobs;
        let tokens = choice.read(places.iter().map(wish))?;
        let mut step = Step::new();
        for (place, token) in places.into_iter().zip(tokens) {
            if let Some(place) = place {
                let text = &mut self.texts[place];
                step.push((text.number, text.push(token)));
            }
        }
        Ok(step)
    }

    /// Lets the model see what the parts bring. The logits [rows, vocabulary] are of those that
    /// are whole; without any, what was seen is computed, not queued.
    pub fn forward(
        &mut self,
        parts: &[Part],
        due: Option<&Queued>,
        forward: &Forward,
    ) -> Result<Option<Array>> {
        if parts.is_empty() {
            return Ok(None);
        }
        let bring = |part: &Part| {
            let text = &self.texts[part.text];
            text.tokens.iter().skip(text.fed).take(part.rows).copied()
        };
        let known: Vec<u32> = known(parts).flat_map(bring).collect();
        let ids = joined(due.zip(queued(parts)), &known, -1)?;
        let mut texts: Vec<Option<&mut Text>> = self.texts.iter_mut().map(Some).collect();
        let (mut brought, mut spliced, mut placed) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for part in parts {
            let Some(text) = texts[part.text].take() else { continue };
            spliced.extend(splice(text, part.rows, first, forward)?);
            first += part.rows;
            let delta = text.positions.as_ref().map_or(0, |own| own.delta);
            placed.push((text.next_positions(part.rows), delta));
            if let Text { cache: Some(cache), fed, .. } = text {
                *fed += part.rows;
                brought.push((cache, part.rows as i32));
            }
        }
        let mut texts = Sequences::new(brought);
        if placed.iter().any(|(rows, delta)| rows.is_some() || *delta != 0) {
            let own = placed.iter();
            let own =
                own.map(|(rows, delta)| RowPositions { rows: rows.as_deref(), delta: *delta });
            texts = texts.positioned(own.collect());
        }
        let h = forward.forward(&ids, &spliced, texts)?;
        let mut end = 0;
        let ends = parts.iter().flat_map(|part| {
            end += part.rows;
            end - if part.whole { part.wanted } else { 0 }..end
        });
        let ends: Vec<usize> = ends.collect();
        let logits = (!ends.is_empty()).then(|| forward.head(&h, &ends)).transpose()?;
        let partial = parts.iter().filter(|part| !part.whole);
        let arrays: Vec<&Array> = partial
            .filter_map(|part| self.texts[part.text].cache.as_ref())
            .flat_map(Cache::arrays)
            .collect();
        if !arrays.is_empty() {
            eval(arrays)?;
            memory::clear_cache()?;
        }
        Ok(logits)
    }
}

/// Features of pictures among the next `rows` tokens of `text`, which are those from number `first`
/// of a step. Features whose tokens all come now are dropped afterwards.
fn splice(text: &mut Text, rows: usize, first: usize, forward: &Forward) -> Result<Vec<Spliced>> {
    let next = text.fed..text.fed + rows;
    let mut spliced = Vec::new();
    for (media, kept) in text.media.iter().zip(&mut text.features) {
        let own = media.tokens.start.max(next.start)..media.tokens.end.min(next.end);
        if own.is_empty() {
            continue;
        }
        let features = match kept.take() {
            Some(features) => features,
            None => forward.features(media)?,
        };
        let part = (own.start - media.tokens.start) as i32..(own.end - media.tokens.start) as i32;
        let at = |token: usize| (first + token - next.start) as i32;
        let rows = at(own.start)..at(own.end);
        spliced.push(Spliced { rows, features: mlx::entries(&features, part)? });
        *kept = Some(features).filter(|_| own.end < media.tokens.end);
    }
    Ok(spliced)
}
