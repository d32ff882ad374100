//! A model at work: a request to a stream of events. Nothing here prints.

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use mlxk_core::{Error, Facts, Kind, Plan, Result};

use crate::answer::{Answer, Marks, Reader};
use crate::batch::Step;
use crate::defaults::defaults;
pub use crate::event::{Bound, End, Event, Likelihood, Reason, Told};
use crate::generation::Generation;
use crate::grammar::{Ready, Ruled, Vocabulary};
use crate::request::{Prompt, Request};
use crate::sample::Constraint;
use crate::{Model, Sampling, Template, Tokenizer};

/// The longest answer that is given without being asked for, in tokens.
const MAX_TOKENS: u64 = 32_768;

/// What continues texts: a loaded model, or a script in tests.
pub trait Source {
    /// Takes in a text that begins with `prompt`, and returns its number.
    fn join(
        &mut self,
        prompt: &[u32],
        sampling: Sampling,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<u64>;

    /// Goes on by a step: tokens, each with the number of its text. One that gets an error is out;
    /// all are if the step itself fails.
    fn step(&mut self) -> Result<Step>;

    /// How many tokens of a text's prompt were remembered, and not computed.
    fn reused(&self, text: u64) -> u64;

    /// Takes a text out.
    fn leave(&mut self, text: u64);
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

    fn step(&mut self) -> Result<Step> {
        Model::step(self)
    }

    fn reused(&self, text: u64) -> u64 {
        Model::reused(self, text)
    }

    fn leave(&mut self, text: u64) {
        Model::leave(self, text);
    }
}

/// A model with all that belongs to it, ready to answer.
pub struct Runner<S> {
    source: S,
    tokenizer: Rc<Tokenizer>,
    template: Option<Template>,
    marks: Rc<Marks>,
    /// Made when it is first needed.
    vocabulary: OnceCell<Vocabulary>,
    window: Option<u64>,
    defaults: Sampling,
    /// The answers in the making, by the numbers of their texts.
    answers: BTreeMap<u64, Generation>,
}

impl<S: Source> Runner<S> {
    /// Puts a loaded model together with the texts that belong to it.
    ///
    /// # Errors
    /// If its tokenizer or its chat template cannot be used.
    pub fn new(source: S, facts: &Facts, plan: &Plan) -> Result<Runner<S>> {
        Runner::with(source, Tokenizer::read(facts)?, facts, plan)
    }

    /// The same with its tokenizer, which may be read while the model is loaded.
    ///
    /// # Errors
    /// If its chat template cannot be used, or what it recommends for sampling makes no sense.
    pub fn with(source: S, tokenizer: Tokenizer, facts: &Facts, plan: &Plan) -> Result<Runner<S>> {
        let tokenizer = Rc::new(tokenizer);
        let template = Template::find(facts)?;
        let marks = template.as_ref().map_or_else(Marks::default, |template| {
            Marks::find(Some(template.source()), &|token| tokenizer.is_added(token))
        });
        let defaults = defaults(facts, &tokenizer)?;
        let window = plan.context_length;
        let answers = BTreeMap::new();
        let (marks, vocabulary) = (Rc::new(marks), OnceCell::new());
        Ok(Runner { source, tokenizer, template, marks, vocabulary, window, defaults, answers })
    }

    /// How many tokens a prompt and its answer may have together, if that is known.
    pub fn context_length(&self) -> Option<u64> {
        self.window
    }

    /// How many tokens the prompt of `request` has.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn count(&self, request: &Request) -> Result<u64> {
        let (_, prompt) = self.prompt(&request.prompt)?;
        budget(prompt.len() as u64, request.options.max_tokens, self.window)?;
        Ok(prompt.len() as u64)
    }

    /// How to sample where a request does not say otherwise.
    pub fn defaults(&self) -> &Sampling {
        &self.defaults
    }

    /// What continues the texts.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Takes a request in, beside those that are being answered, and returns the number of its
    /// answer.
    ///
    /// Without a chat template the one message of a user is the prompt as it is.
    ///
    /// # Errors
    /// If the prompt has no tokens, or as many as fit the model ([`Kind::ContextLengthExceeded`]),
    /// or is not what the model takes.
    pub fn join(&mut self, request: &Request) -> Result<u64> {
        let rules = request.rules.as_ref();
        let ready = rules.map(|rules| self.vocabulary()?.ready(rules)).transpose()?;
        self.join_ready(request, ready)
    }

    /// Does the same with the rules of the request made `ready` elsewhere, as by a thread that may
    /// take its time.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_ready(&mut self, request: &Request, ready: Option<Ready>) -> Result<u64> {
        request.options.check()?;
        let (text, prompt) = self.prompt(&request.prompt)?;
        let (limit, bound) = budget(prompt.len() as u64, request.options.max_tokens, self.window)?;
        let sampling = request.options.sampling(&self.defaults)?;
        let reader = || match &request.prompt {
            Prompt::Text(_) | Prompt::Tokens(_) => Reader::Plain,
            Prompt::Chat(chat) => {
                Reader::new(&self.marks, &text, chat.tools.as_deref().unwrap_or_default())
            }
        };
        let answer = |stop: &[String]| Answer::new(&self.tokenizer, stop, reader(), sampling.seed);
        let constraint = match ready {
            Some(ready) => Some(self.ruled(ready, answer(&[])?)?),
            None => None,
        };
        let generation = Generation {
            answer: answer(&request.options.stop)?,
            stop_ids: request.options.stop_ids.clone(),
            limit,
            bound,
            end: End {
                reason: Reason::Interrupted,
                prompt_tokens: prompt.len() as u64,
                cached_tokens: 0,
                completion_tokens: 0,
                reasoning_tokens: 0,
                stop: None,
                seed: sampling.seed,
            },
            over: false,
        };
        let given = matches!(request.prompt, Prompt::Tokens(_));
        let number = self.source.join(&prompt, sampling, constraint).map_err(|e| match e.kind {
            // Tokens that the model does not know are the request's.
            Kind::InvalidModel if given => Error::new(Kind::Validation, "", e.message),
            _ => e,
        })?;
        self.answers.insert(number, generation);
        Ok(number)
    }

    /// Goes on by a step: what came of it, each with the number of its answer. After an
    /// [`Event::End`] or an error nothing more comes of an answer.
    pub fn step(&mut self) -> Vec<(u64, Result<Event>)> {
        let step = self.source.step().unwrap_or_else(|e| {
            let same = || Error::new(e.kind, &e.subject, &e.message);
            self.answers.keys().map(|&number| (number, Err(same()))).collect()
        });
        let mut events = Vec::new();
        for (number, token) in step {
            let Some(generation) = self.answers.get_mut(&number) else { continue };
            generation.end.cached_tokens = self.source.reused(number);
            match token.map(|token| generation.push(&token, &self.tokenizer, &self.marks)) {
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

    /// Ends an answer where it is: what there is still to say. Nothing of one that is over.
    pub fn interrupt(&mut self, number: u64) -> Vec<Event> {
        let generation = self.answers.get_mut(&number);
        let events = generation.map(|answer| answer.finish(Reason::Interrupted));
        self.leave(number);
        events.unwrap_or_default()
    }

    /// Drops an answer.
    pub fn leave(&mut self, number: u64) {
        self.answers.remove(&number);
        self.source.leave(number);
    }

    /// Answers one request. `interrupted` is asked before each token but the first; once it is
    /// true, the answer ends.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn generate<'a>(
        &'a mut self,
        request: &Request,
        interrupted: &'a dyn Fn() -> bool,
    ) -> Result<impl Iterator<Item = Result<Event>> + use<'a, S>> {
        let number = self.join(request)?;
        Ok(Single { runner: self, number, interrupted, ready: VecDeque::new(), begun: false })
    }

    /// The text of a prompt, and its tokens; those that are given have no text.
    fn prompt(&self, prompt: &Prompt) -> Result<(String, Vec<u32>)> {
        let text = match (prompt, &self.template) {
            (Prompt::Tokens(tokens), _) => return Ok((String::new(), tokens.clone())),
            (Prompt::Text(text), _) => text.clone(),
            (Prompt::Chat(conversation), Some(template)) => {
                template.fit(conversation, self.tokenizer.special())?
            }
            (Prompt::Chat(conversation), None) => {
                conversation.only_text().map(str::to_owned).ok_or_else(|| {
                    let message =
                        "the model has no chat template: it takes a prompt, not a conversation";
                    Error::new(Kind::CapabilityNotSupported, "", message)
                })?
            }
        };
        let tokens = self.tokenizer.encode(&text)?;
        Ok((text, tokens))
    }

    /// What rules are made ready with.
    ///
    /// # Errors
    /// If no token ends a text.
    pub fn vocabulary(&self) -> Result<&Vocabulary> {
        match self.vocabulary.get() {
            Some(vocabulary) => Ok(vocabulary),
            None => {
                let vocabulary = Vocabulary::new(&self.tokenizer)?;
                Ok(self.vocabulary.get_or_init(|| vocabulary))
            }
        }
    }

    /// What keeps to rules in an answer that `reading` reads along.
    fn ruled(&self, ready: Ready, reading: Answer) -> Result<Box<dyn Constraint>> {
        let vocabulary = self.vocabulary()?;
        let ruled = Ruled::new(vocabulary, ready, &self.tokenizer, &self.marks, reading);
        Ok(Box::new(ruled))
    }
}

/// How many tokens may come, and why not more.
fn budget(prompt: u64, asked: Option<u64>, window: Option<u64>) -> Result<(u64, Bound)> {
    if prompt == 0 {
        let message = "the prompt is empty, and the model needs something to go on from";
        return Err(Error::new(Kind::Validation, "", message));
    }
    let wanted = match asked {
        Some(asked) => (asked, Bound::Asked),
        None => (MAX_TOKENS, Bound::Default),
    };
    match window {
        Some(window) if prompt >= window => Err(Error::new(
            Kind::ContextLengthExceeded,
            "",
            format!("the prompt has {prompt} tokens, and the model's context holds {window}"),
        )
        .hint("a shorter prompt leaves room for an answer")),
        Some(window) if window - prompt < wanted.0 => Ok((window - prompt, Bound::Window)),
        _ => Ok(wanted),
    }
}

/// One answer, step by step. Dropping it ends the work on it.
struct Single<'a, S: Source> {
    runner: &'a mut Runner<S>,
    number: u64,
    interrupted: &'a dyn Fn() -> bool,
    ready: VecDeque<Result<Event>>,
    /// Whether its first token has come.
    begun: bool,
}

impl<S: Source> Iterator for Single<'_, S> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        while self.ready.is_empty() {
            let generation = self.runner.answers.get(&self.number)?;
            self.begun |= generation.end.completion_tokens > 0;
            if self.begun && (self.interrupted)() {
                self.ready.extend(self.runner.interrupt(self.number).into_iter().map(Ok));
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
