//! A model at work: a request to a stream of events. Nothing here prints.

use std::collections::{BTreeMap, VecDeque};

use mlxk_core::{Error, Facts, Kind, Plan, Record, Result};
use serde_json::{Map, Value, json};

use crate::batch::Step;
use crate::defaults::defaults;
use crate::detokenize::Detokenizer;
use crate::request::{Prompt, Request};
use crate::sample::{Constraint, Token};
use crate::stop::{Passed, Stop};
use crate::{Conversation, Model, Sampling, Template, Tokenizer};

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

    fn leave(&mut self, text: u64) {
        Model::leave(self, text);
    }
}

/// A model with all that belongs to it, ready to answer.
pub struct Runner<S> {
    source: S,
    tokenizer: Tokenizer,
    template: Option<Template>,
    window: Option<u64>,
    defaults: Sampling,
    /// The answers in the making, by the numbers of their texts.
    answers: BTreeMap<u64, Generation>,
}

/// What comes of a request, in order: texts, then one end.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// How likely the next token of the answer was, if that was asked.
    Logprobs(Told),
    /// More of the answer.
    Text(String),
    /// The answer is complete.
    End(End),
}

/// How likely a token was.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Of the token that was chosen.
    pub own: Likelihood,
    /// Of the most likely ones, the likeliest first.
    pub top: Vec<Likelihood>,
}

/// A token, and the natural logarithm of its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Its number.
    pub id: u32,
    /// Its text, as far as it is one alone.
    pub text: String,
    /// Before any filter and temperature.
    pub logprob: f32,
}

impl Told {
    /// As it stands in records.
    pub fn record(&self) -> Value {
        let top: Vec<Value> = self.top.iter().map(|token| Value::Object(token.record())).collect();
        let mut record = self.own.record();
        record.insert("top".into(), top.into());
        Value::Object(record)
    }
}

impl Likelihood {
    fn record(&self) -> Map<String, Value> {
        let fields = [
            ("id", self.id.into()),
            ("token", self.text.as_str().into()),
            ("logprob", self.logprob.into()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// Why.
    pub reason: Reason,
    /// Tokens of the prompt, with all that the template and the tokenizer put around it.
    pub prompt_tokens: u64,
    /// Tokens that the model gave, with the one that ended the answer.
    pub completion_tokens: u64,
    /// The seed in use.
    pub seed: u64,
}

impl End {
    /// The fields of a record that tell of an answer besides its text.
    pub fn record(&self) -> Record {
        let usage = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        });
        let record = Record::default().with("finish_reason", self.reason.name());
        record.with("usage", usage).with("seed", self.seed)
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The model ended it, or a stop string.
    Stop,
    /// It was as long as it may be.
    Length(Bound),
    /// The caller ended it.
    Interrupted,
}

/// What bounds the length of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `max_tokens`.
    Asked,
    /// What is given to those who do not ask.
    Default,
    /// The longest text that the model was made for.
    Window,
}

impl Reason {
    /// The `finish_reason` of records.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Stop => "stop",
            Reason::Length(_) => "length",
            Reason::Interrupted => "interrupted",
        }
    }
}

impl<S: Source> Runner<S> {
    /// Puts a loaded model together with the texts that belong to it.
    ///
    /// # Errors
    /// If its tokenizer or its chat template cannot be used.
    pub fn new(source: S, facts: &Facts, plan: &Plan) -> Result<Runner<S>> {
        let tokenizer = Tokenizer::read(facts)?;
        let template = Template::find(facts)?;
        let defaults = defaults(facts, &tokenizer)?;
        let window = plan.context_length;
        let answers = BTreeMap::new();
        Ok(Runner { source, tokenizer, template, window, defaults, answers })
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
        request.options.check()?;
        let prompt = self.tokenizer.encode(&self.text(&request.prompt)?)?;
        let (limit, bound) = budget(prompt.len() as u64, request.options.max_tokens, self.window)?;
        let sampling = request.options.sampling(&self.defaults)?;
        let generation = Generation {
            detokenizer: self.tokenizer.detokenizer()?,
            stop: Stop::new(request.options.stop.iter().cloned()),
            stop_ids: request.options.stop_ids.clone(),
            limit,
            bound,
            end: End {
                reason: Reason::Interrupted,
                prompt_tokens: prompt.len() as u64,
                completion_tokens: 0,
                seed: sampling.seed,
            },
            over: false,
        };
        let number = self.source.join(&prompt, sampling, None)?;
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
            match token.map(|token| generation.push(&token, &self.tokenizer)) {
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

    fn text(&self, prompt: &Prompt) -> Result<String> {
        match (prompt, &self.template) {
            (Prompt::Text(text), _) => Ok(text.clone()),
            (Prompt::Messages(messages), Some(template)) => {
                let conversation =
                    Conversation { messages: messages.clone(), ..Conversation::default() };
                template.render(&conversation, self.tokenizer.special())
            }
            (Prompt::Messages(messages), None) => match messages.as_slice() {
                [only] if only["role"] == "user" && only["content"].is_string() => {
                    Ok(only["content"].as_str().unwrap_or_default().to_owned())
                }
                _ => Err(Error::new(
                    Kind::CapabilityNotSupported,
                    "",
                    "the model has no chat template: it takes a prompt, not a conversation",
                )),
            },
        }
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

/// An answer in the making.
struct Generation {
    detokenizer: Detokenizer,
    stop: Stop,
    /// Tokens that end the answer, besides those of the model.
    stop_ids: Vec<u32>,
    limit: u64,
    bound: Bound,
    end: End,
    over: bool,
}

impl Generation {
    /// Goes on by a token: what comes of it.
    fn push(&mut self, token: &Token, tokenizer: &Tokenizer) -> Vec<Event> {
        self.end.completion_tokens += 1;
        let told = token.logprobs.as_ref().map(|told| tokenizer.told(token.id, told));
        let mut events: Vec<Event> = told.map(Event::Logprobs).into_iter().collect();
        if tokenizer.is_end(token.id) || self.stop_ids.contains(&token.id) {
            events.extend(self.finish(Reason::Stop));
            return events;
        }
        let text = tokenizer.text_token(token.id);
        let text = text.map_or_else(String::new, |text| self.detokenizer.push(&text));
        let text = self.pass(&text);
        events.extend((!text.is_empty()).then_some(Event::Text(text)));
        if self.over {
            events.push(Event::End(self.end.clone()));
        } else if self.end.completion_tokens == self.limit {
            events.extend(self.finish(Reason::Length(self.bound)));
        }
        events
    }

    /// What may be shown of `text`; a stop string in it ends the answer.
    fn pass(&mut self, text: &str) -> String {
        match self.stop.push(text) {
            Passed::Text(text) => text,
            Passed::Last(text) => {
                self.end.reason = Reason::Stop;
                self.over = true;
                text
            }
        }
    }

    /// Ends the answer: the text that was held back, and the end.
    fn finish(&mut self, reason: Reason) -> Vec<Event> {
        self.end.reason = reason;
        let rest = self.detokenizer.finish();
        let text = self.pass(&rest) + &self.stop.finish();
        self.over = true;
        let text = (!text.is_empty()).then_some(Event::Text(text));
        text.into_iter().chain([Event::End(self.end.clone())]).collect()
    }
}
