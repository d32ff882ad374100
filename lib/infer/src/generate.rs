//! A model at work: a request to a stream of events. Nothing here prints.

use mlxk_core::{Error, Facts, Kind, Plan, Record, Result};
use serde_json::json;

use crate::defaults::defaults;
use crate::detokenize::Detokenizer;
use crate::request::{Prompt, Request};
use crate::stop::{Passed, Stop};
use crate::{Conversation, Model, Sampling, Template, Tokenizer};

/// The longest answer that is given without being asked for, in tokens.
const MAX_TOKENS: u64 = 32_768;

/// What gives the tokens: a loaded model, or a script in tests.
pub trait Source {
    /// The tokens that follow `prompt`, without end. Dropping the iterator ends the work on them.
    fn tokens<'a>(
        &'a mut self,
        prompt: &[u32],
        sampling: &Sampling,
    ) -> Result<impl Iterator<Item = Result<u32>> + use<'a, Self>>;
}

impl Source for Model {
    fn tokens<'a>(
        &'a mut self,
        prompt: &[u32],
        sampling: &Sampling,
    ) -> Result<impl Iterator<Item = Result<u32>> + use<'a>> {
        Model::tokens(self, prompt, sampling)
    }
}

/// A model with all that belongs to it, ready to answer.
pub struct Runner<M> {
    model: M,
    tokenizer: Tokenizer,
    template: Option<Template>,
    window: Option<u64>,
    defaults: Sampling,
}

/// What comes of a request, in order: texts, then one end.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// More of the answer.
    Text(String),
    /// The answer is complete.
    End(End),
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

impl<M: Source> Runner<M> {
    /// Puts a loaded model together with the texts that belong to it.
    ///
    /// # Errors
    /// If its tokenizer or its chat template cannot be used.
    pub fn new(model: M, facts: &Facts, plan: &Plan) -> Result<Runner<M>> {
        let tokenizer = Tokenizer::read(facts)?;
        let template = Template::find(facts)?;
        let defaults = defaults(facts, &tokenizer)?;
        Ok(Runner { model, tokenizer, template, window: plan.context_length, defaults })
    }

    /// Answers a request. `interrupted` is asked before each token, and not before the first is
    /// due; once it is true, the answer ends.
    ///
    /// Without a chat template the one message of a user is the prompt as it is.
    ///
    /// # Errors
    /// If the prompt has no tokens, or as many as fit the model ([`Kind::ContextLengthExceeded`]),
    /// or is not what the model takes.
    pub fn generate<'a>(
        &'a mut self,
        request: &Request,
        interrupted: &'a dyn Fn() -> bool,
    ) -> Result<impl Iterator<Item = Result<Event>> + use<'a, M>> {
        request.options.check()?;
        let prompt = self.tokenizer.encode(&self.text(&request.prompt)?)?;
        let (limit, bound) = budget(prompt.len() as u64, request.options.max_tokens, self.window)?;
        let sampling = request.options.sampling(&self.defaults)?;
        Ok(Generation {
            detokenizer: self.tokenizer.detokenizer()?,
            tokenizer: &self.tokenizer,
            tokens: self.model.tokens(&prompt, &sampling)?,
            stop: Stop::new(request.options.stop.iter().cloned()),
            stop_ids: request.options.stop_ids.clone(),
            limit,
            bound,
            interrupted,
            end: End {
                reason: Reason::Interrupted,
                prompt_tokens: prompt.len() as u64,
                completion_tokens: 0,
                seed: sampling.seed,
            },
            stage: Stage::Running,
        })
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

/// An answer in the making.
struct Generation<'a, T> {
    tokens: T,
    tokenizer: &'a Tokenizer,
    detokenizer: Detokenizer,
    stop: Stop,
    /// Tokens that end the answer, besides those of the model.
    stop_ids: Vec<u32>,
    limit: u64,
    bound: Bound,
    interrupted: &'a dyn Fn() -> bool,
    end: End,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Running,
    /// All text is out.
    Ending,
    Over,
}

impl<T: Iterator<Item = Result<u32>>> Iterator for Generation<'_, T> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        while self.stage == Stage::Running {
            match self.step() {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some(Ok(Event::Text(text))),
                Err(e) => {
                    self.stage = Stage::Over;
                    return Some(Err(e));
                }
            }
        }
        let ending = self.stage == Stage::Ending;
        self.stage = Stage::Over;
        ending.then(|| Ok(Event::End(self.end.clone())))
    }
}

impl<T: Iterator<Item = Result<u32>>> Generation<'_, T> {
    /// Goes on by a token: the text that it settles.
    fn step(&mut self) -> Result<String> {
        if (self.interrupted)() {
            return Ok(self.finish(Reason::Interrupted));
        }
        if self.end.completion_tokens == self.limit {
            return Ok(self.finish(Reason::Length(self.bound)));
        }
        let ended = || Err(Error::new(Kind::Internal, "", "the model gives no more tokens"));
        let id = self.tokens.next().unwrap_or_else(ended)?;
        self.end.completion_tokens += 1;
        if self.tokenizer.is_end(id) || self.stop_ids.contains(&id) {
            return Ok(self.finish(Reason::Stop));
        }
        let token = self.tokenizer.text_token(id);
        let text = token.map_or_else(String::new, |token| self.detokenizer.push(&token));
        Ok(self.pass(&text))
    }

    /// What may be shown of `text`; a stop string in it ends the answer.
    fn pass(&mut self, text: &str) -> String {
        match self.stop.push(text) {
            Passed::Text(text) => text,
            Passed::Last(text) => {
                self.end.reason = Reason::Stop;
                self.stage = Stage::Ending;
                text
            }
        }
    }

    /// Ends the answer: the text that was held back.
    fn finish(&mut self, reason: Reason) -> String {
        self.end.reason = reason;
        self.stage = Stage::Ending;
        let rest = self.detokenizer.finish();
        let shown = self.pass(&rest);
        shown + &self.stop.finish()
    }
}
