//! Texts that a model continues together: they join and leave between any two tokens.
//!
//! A step advances every text that is being continued by a token, and takes in as much of the
//! prompts of the others as fits, all in one pass through the weights. On a GPU the next step is
//! queued before the tokens of the last one are read.

use mlx_rs::error::Result;
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, memory};
use mlxk_core::{Error, Kind};
use mlxk_processor::{Constraint, Sampling, Token};

use crate::cache::{Cache, Texts};
use crate::decode::Model;
use crate::eager::elements;
use crate::remember::{Prefixes, common};
use crate::sample::device::{self, Choice};
use crate::sample::{Turn, host};

mod draft;
mod parts;

pub use draft::Draft;
use parts::{Part, joined, known, queued};

/// Steps after which MLX gives the memory back that it keeps for reuse.
const TIDY: u64 = 256;

/// Tokens that are worth waiting for another text to take them in.
const SAVING: usize = 16;

/// The tokens of a step, each with the number of its text.
pub type Step = Vec<(u64, mlxk_core::Result<Token>)>;

/// The texts of a model.
#[derive(Default)]
pub struct Batch {
    texts: Vec<Text>,
    /// The tokens that are chosen, or soon will be, but not read.
    queued: Option<Queued>,
    /// What is remembered of texts that are over.
    prefixes: Prefixes,
    /// Texts that ever joined.
    joined: u64,
    /// Steps taken.
    steps: u64,
}

/// A text that is being continued.
struct Text {
    number: u64,
    /// None before its first step.
    cache: Option<Cache>,
    /// Tokens of the prompt that were remembered.
    reused: usize,
    /// What a draft model remembers, and how many tokens it has seen.
    draft: Option<(Cache, usize)>,
    /// The tokens that are known.
    tokens: Vec<u32>,
    /// How many of them the cache has seen, or will have when what is queued is done.
    fed: usize,
    sampling: Sampling,
    /// Choices made.
    chosen: u64,
    constraint: Option<Box<dyn Constraint>>,
}

/// Tokens whose choice is queued.
struct Queued {
    choice: Choice,
    /// The texts of its rows.
    texts: Vec<u64>,
}

impl Model {
    /// Takes in a text that begins with `prompt`, and returns its number. Its first token comes of
    /// one of the next steps.
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
        self.check(prompt)?;
        sampling.check()?;
        let vocabulary = self.vocabulary();
        if let Some((id, _)) = sampling.logit_bias.iter().find(|(id, _)| *id as usize >= vocabulary)
        {
            let message = format!("`logit_bias` names token {id}, the model knows {vocabulary}");
            return Err(Error::new(Kind::Validation, "", message));
        }
        self.batch.joined += 1;
        self.batch.texts.push(Text {
            number: self.batch.joined,
            cache: None,
            reused: 0,
            draft: None,
            tokens: prompt.to_vec(),
            fed: 0,
            sampling,
            chosen: 0,
            constraint,
        });
        Ok(self.batch.joined)
    }

    /// Takes a text out, whether it has ended or not.
    pub fn leave(&mut self, number: u64) {
        let batch = &mut self.batch;
        let Some(place) = batch.texts.iter().position(|text| text.number == number) else { return };
        let Text { cache, mut tokens, fed, .. } = batch.texts.remove(place);
        // A token that is queued and not read is not known.
        let unknown = fed.saturating_sub(tokens.len());
        tokens.truncate(fed);
        if let Some(mut cache) = cache
            && cache.forget(unknown)
            && !tokens.is_empty()
        {
            batch.prefixes.put(tokens, cache, self.memory.prefix_bytes);
        }
    }

    /// Takes `bytes` at most for texts that are over.
    pub fn bound_prefixes(&mut self, bytes: u64) {
        self.memory.prefix_bytes = bytes;
        self.batch.prefixes.shrink(bytes);
    }

    /// Bytes that texts take that are over.
    pub fn prefixes(&self) -> u64 {
        self.batch.prefixes.bytes()
    }

    /// How many tokens of a text's prompt were remembered, and not computed.
    pub fn reused(&self, number: u64) -> u64 {
        let text = self.batch.texts.iter().find(|text| text.number == number);
        text.map_or(0, |text| text.reused as u64)
    }

    /// Goes on by a step. A text may get no token from it, while prompts are taken in. One that
    /// gets an error is out.
    ///
    /// # Errors
    /// If the model fails: all texts are out then.
    pub fn step(&mut self) -> mlxk_core::Result<Step> {
        let mut batch = std::mem::take(&mut self.batch);
        let step = self.run(|| batch.step(self));
        let failed = |text: &Text| match &step {
            Ok(step) => step.iter().any(|(number, token)| *number == text.number && token.is_err()),
            Err(_) => true,
        };
        batch.texts.retain(|text| !failed(text));
        batch.queued = batch.queued.take().filter(|_| step.is_ok());
        self.batch = batch;
        step
    }
}

impl Batch {
    /// What is remembered of the text that was over last.
    pub fn last_over(&self) -> Option<&(Vec<u32>, Cache)> {
        self.prefixes.last()
    }

    /// Remembers a text for others that begin alike.
    pub fn remember(&mut self, tokens: Vec<u32>, cache: Cache, bytes: u64) {
        self.prefixes.put(tokens, cache, bytes);
    }

    fn step(&mut self, model: &Model) -> Result<Step> {
        self.steps += 1;
        if self.steps.is_multiple_of(TIDY) {
            memory::clear_cache()?;
        }
        self.begin(model);
        if let Some(draft) = &model.draft {
            return self.step_drafted(model, draft);
        }
        if !model.ahead {
            return self.step_at_once(model);
        }
        let due = self.queued.take();
        let begun = due.is_some();
        let step = self.launch(due, model)?;
        match self.queued.take() {
            Some(first) if !begun => self.launch(Some(first), model),
            queued => {
                self.queued = queued;
                Ok(step)
            }
        }
    }

    /// Gives texts their caches: what is remembered of the beginning of their prompts. One whose
    /// beginning an earlier text is just taking in waits for that.
    fn begin(&mut self, model: &Model) {
        for place in 0..self.texts.len() {
            let (earlier, rest) = self.texts.split_at(place);
            let text = &rest[0];
            if text.cache.is_some() {
                continue;
            }
            let whole = &text.tokens[..text.tokens.len() - 1];
            let shared = |other: &Text| {
                let forgets = other.cache.as_ref().is_none_or(Cache::forgets);
                if forgets { common(&other.tokens, whole) } else { 0 }
            };
            let other = earlier.iter().max_by_key(|other| shared(other));
            let beside = other.map_or(0, shared);
            let remembered = self.prefixes.shared(&text.tokens);
            if beside > remembered + SAVING && other.is_some_and(|other| other.fed < beside) {
                continue;
            }
            let from_other = other.filter(|_| beside > remembered).and_then(|other| {
                let (mut cache, known) = (other.cache.clone()?, beside.min(other.fed));
                cache.forget(other.fed - known).then_some((cache, known))
            });
            let found = from_other.or_else(|| self.prefixes.take(&text.tokens));
            let (cache, reused) = found.unwrap_or_else(|| (model.cache(), 0));
            let text = &mut self.texts[place];
            (text.cache, text.reused, text.fed) = (Some(cache), reused, reused);
        }
    }

    /// Takes a step, and waits for its tokens.
    fn step_at_once(&mut self, model: &Model) -> Result<Step> {
        let parts = self.parts(None, model.prefill_chunk);
        let Some(logits) = self.forward(&parts, None, model)? else { return Ok(Step::new()) };
        let rows: &[f32] = elements(&logits)?;
        let size = logits.dim(-1) as usize;
        let whole = parts.iter().filter(|part| part.whole);
        Ok(rows.chunks_exact(size).zip(whole).map(|(row, part)| self.choose(part, row)).collect())
    }

    /// The next token of a text by the `logits` of all tokens.
    fn choose(&mut self, part: &Part, logits: &[f32]) -> (u64, mlxk_core::Result<Token>) {
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
    fn launch(&mut self, mut due: Option<Queued>, model: &Model) -> Result<Step> {
        let parts = self.parts(due.as_ref(), model.prefill_chunk);
        let Some(logits) = self.forward(&parts, due.as_ref(), model)? else {
            return self.read(due);
        };
        let last = self.last(&parts, due.as_ref())?;
        let whole: Vec<usize> = parts.iter().filter(|p| p.whole).map(|p| p.text).collect();
        let mut step = Step::new();
        if whole.iter().any(|&text| self.texts[text].constraint.is_some()) {
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
    fn forward(
        &mut self,
        parts: &[Part],
        due: Option<&Queued>,
        model: &Model,
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
        let mut brought = Vec::new();
        for part in parts {
            if let Some(Text { cache: Some(cache), fed, .. }) = texts[part.text].take() {
                *fed += part.rows;
                brought.push((cache, part.rows as i32));
            }
        }
        let h = model.forward(&ids, Texts::new(brought))?;
        let mut end = 0;
        let ends = parts.iter().flat_map(|part| {
            end += part.rows;
            end - if part.whole { part.wanted } else { 0 }..end
        });
        let ends: Vec<usize> = ends.collect();
        let logits = (!ends.is_empty()).then(|| model.head(&h, &ends)).transpose()?;
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

impl Text {
    /// What rules allow next, if there are any.
    fn allowed(&mut self) -> mlxk_core::Result<Option<Vec<u32>>> {
        self.constraint.as_mut().map(|constraint| constraint.allowed()).transpose()
    }

    /// The choice after the first `known` tokens.
    fn turn(&self, known: usize, allowed: Option<Vec<u32>>) -> Turn<'_> {
        let recent = &self.tokens[..known];
        Turn { sampling: &self.sampling, recent, number: self.chosen, allowed }
    }

    /// Goes on by a token, unless rules forbid it.
    fn push(&mut self, token: Token) -> mlxk_core::Result<Token> {
        if let Some(constraint) = &mut self.constraint {
            constraint.push(token.id)?;
        }
        self.tokens.push(token.id);
        Ok(token)
    }
}
