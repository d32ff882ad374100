//! Runner of a model: requests in, streams of events out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mlxk_core::{Error, Facts, Kind, Plan, Result};
use mlxk_processor::event::{Event, FinishReason};
use mlxk_processor::{Constraint, Generation, Media, Prepared, Processor, Request, Sampling};

use crate::batch::Step;
use crate::model::Model;
use crate::prefill::Prefill;

/// Source of tokens that continue sequences: a loaded model, or a script in tests.
pub trait Source {
    /// Adds a sequence that begins with `prompt`, and returns its number.
    ///
    /// # Errors
    /// If the source cannot continue `prompt`.
    fn join(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<u64>;

    /// Adds a sequence of which some tokens stand for pictures, and returns its number.
    ///
    /// # Errors
    /// If the source takes no pictures.
    fn join_media(
        &mut self,
        prompt: &[u32],
        media: &[Media],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<u64> {
        match media {
            [] => self.join(prompt, sampling, constraint),
            _ => Err(Error::unsupported("no pictures are taken")),
        }
    }

    /// Takes a step, and returns its tokens, each with the number of its sequence. An error instead of a
    /// token ends its sequence.
    ///
    /// # Errors
    /// If the step fails, which ends all sequences.
    fn step(&mut self) -> Result<Step>;

    /// Takes a step with as many rows of prompts as `prefill` allows.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    fn step_with(&mut self, _prefill: Prefill) -> Result<Step> {
        self.step()
    }

    /// Time of a step without prompts; zero if no sequence has a token yet, `None` if it is not known.
    fn decode_time(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    /// True if prompts are not prefilled yet.
    fn prefills(&self) -> bool {
        false
    }

    /// Bytes of the prefix cache.
    fn prefix_bytes(&self) -> u64 {
        0
    }

    /// Limits the prefix cache to `bytes`, and evicts entries beyond that.
    fn limit_prefix_cache(&mut self, _bytes: u64) {}

    /// Number of tokens of a sequence's prompt that came from a cache.
    fn reused(&self, sequence: u64) -> u64;

    /// Removes a sequence.
    fn leave(&mut self, sequence: u64);
}

impl Source for Model {
    fn join(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<u64> {
        Model::join(self, prompt, sampling, constraint)
    }

    fn join_media(
        &mut self,
        prompt: &[u32],
        media: &[Media],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<u64> {
        Model::join_media(self, prompt, media, sampling, constraint)
    }

    fn step(&mut self) -> Result<Step> {
        Model::step(self)
    }

    fn step_with(&mut self, prefill: Prefill) -> Result<Step> {
        Model::step_with(self, prefill)
    }

    fn decode_time(&self) -> Option<Duration> {
        Model::decode_time(self)
    }

    fn prefills(&self) -> bool {
        Model::prefills(self)
    }

    fn prefix_bytes(&self) -> u64 {
        Model::prefix_bytes(self)
    }

    fn limit_prefix_cache(&mut self, bytes: u64) {
        Model::limit_prefix_cache(self, bytes);
    }

    fn reused(&self, sequence: u64) -> u64 {
        Model::reused(self, sequence)
    }

    fn leave(&mut self, sequence: u64) {
        Model::leave(self, sequence);
    }
}

/// Runner of a model: a source of tokens with its processor and the answers that are generated.
pub struct Runner<S> {
    source: S,
    processor: Arc<Processor>,
    /// Answers that are generated, by the numbers of their sequences.
    answers: BTreeMap<u64, Generation>,
}

impl<S: Source> Runner<S> {
    /// A runner of `source`, with the processor of the model of `facts`.
    ///
    /// # Errors
    /// As [`Processor::read`].
    pub fn new(source: S, facts: &Facts, plan: &Plan) -> Result<Runner<S>> {
        Ok(Runner::with(source, Arc::new(Processor::read(facts, plan)?)))
    }

    /// A runner of `source` with `processor`, which can be read while the model is loaded.
    pub fn with(source: S, processor: Arc<Processor>) -> Runner<S> {
        Runner { source, processor, answers: BTreeMap::new() }
    }

    /// Processor that prepares requests.
    pub fn processor(&self) -> &Arc<Processor> {
        &self.processor
    }

    /// Source of the tokens.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Source of the tokens, for changes of its settings.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Prepares a request, adds it to those that are being answered, and returns the number of its
    /// answer.
    ///
    /// # Errors
    /// As [`Processor::prepare`], and if the model does not know the tokens of the prompt.
    pub fn join(&mut self, request: &Request) -> Result<u64> {
        let prepared = self.processor.prepare(request)?;
        self.join_prepared(prepared)
    }

    /// Adds a request that this model's processor has prepared to those that are being answered, and
    /// returns the number of its answer.
    ///
    /// # Errors
    /// If the model does not know the tokens of the prompt.
    pub fn join_prepared(&mut self, prepared: Prepared) -> Result<u64> {
        let Prepared { prompt, media, from_ids, sampling, constraint, generation, .. } = prepared;
        let constraint = constraint.map(|own| Box::new(own) as Box<dyn Constraint>);
        let joined = self.source.join_media(&prompt, &media, sampling, constraint);
        let number = joined.map_err(|mut e| {
            if e.kind == Kind::InvalidModel && from_ids {
                // Tokens that the model does not know are the request's, not the tokenizer's.
                (e.kind, e.hint) = (Kind::Validation, None);
            }
            e
        })?;
        self.answers.insert(number, generation);
        Ok(number)
    }

    /// Takes a step, and returns its events, each with the number of its answer. [`Event::End`] or an
    /// error is the last event of an answer.
    pub fn step(&mut self) -> Vec<(u64, Result<Event>)> {
        self.step_with(Prefill::Chunk)
    }

    /// Takes a step like [`step`](Self::step), with as many rows of prompts as `prefill` allows.
    pub fn step_with(&mut self, prefill: Prefill) -> Vec<(u64, Result<Event>)> {
        let failed = |e: Error| self.answers.keys().map(|&n| (n, Err(e.clone()))).collect();
        let step = self.source.step_with(prefill).unwrap_or_else(failed);
        let mut events = Vec::new();
        for (number, token) in step {
            let Some(generation) = self.answers.get_mut(&number) else { continue };
            generation.end.cached_tokens = self.source.reused(number);
            match token.map(|token| {
                generation.push(&token, self.processor.tokenizer(), self.processor.markers())
            }) {
                Ok(some) => events.extend(some.into_iter().map(|event| (number, Ok(event)))),
                Err(e) => {
                    generation.over = true;
                    events.push((number, Err(e)));
                }
            }
            if generation.over {
                self.leave(number);
            }
        }
        events
    }

    /// Number of tokens of an answer so far; 0 if it is over.
    pub fn written(&self, number: u64) -> u64 {
        self.answers.get(&number).map_or(0, |generation| generation.end.completion_tokens)
    }

    /// Ends an answer for a `reason`, and returns its last events; none if the answer is over already.
    pub fn end(&mut self, number: u64, reason: FinishReason) -> Vec<Event> {
        let generation = self.answers.get_mut(&number);
        let events = generation.map(|answer| answer.finish(reason));
        self.leave(number);
        events.unwrap_or_default()
    }

    /// Drops an answer without further events.
    pub fn leave(&mut self, number: u64) {
        self.answers.remove(&number);
        self.source.leave(number);
    }

    /// Events of the answer to one request. `interrupted` is called before each step, of which a long
    /// prompt takes several; the answer ends once it returns true.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn generate<'a>(
        &'a mut self,
        request: &Request,
        interrupted: &'a dyn Fn() -> bool,
    ) -> Result<impl Iterator<Item = Result<Event>> + use<'a, S>> {
        let number = self.join(request)?;
        Ok(Single { runner: self, number, interrupted, ready: VecDeque::new() })
    }
}

/// Events of one answer, step by step. Dropping this drops the answer.
struct Single<'a, S: Source> {
    runner: &'a mut Runner<S>,
    number: u64,
    interrupted: &'a dyn Fn() -> bool,
    ready: VecDeque<Result<Event>>,
}

impl<S: Source> Iterator for Single<'_, S> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        while self.ready.is_empty() {
            if !self.runner.answers.contains_key(&self.number) {
                return None;
            }
            if (self.interrupted)() {
                let events = self.runner.end(self.number, FinishReason::Interrupted);
                self.ready.extend(events.into_iter().map(Ok));
            } else {
                let events = self.runner.step().into_iter();
                let own = events.filter(|(number, _)| *number == self.number);
                self.ready.extend(own.map(|(_, event)| event));
            }
        }
        self.ready.pop_front()
    }
}

impl<S: Source> Drop for Single<'_, S> {
    fn drop(&mut self) {
        self.runner.leave(self.number);
    }
}
