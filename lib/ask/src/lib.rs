//! Asks a model what a program was asked, and writes the answers.
//!
//! Only programs use this crate: it prints, as mlxk-cli does.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod bench;
mod chat;
mod flags;
mod given;
mod many;
mod page;
mod work;

use std::cell::OnceCell;
use std::time::Instant;

use mlxk_cli::examine::find;
use mlxk_cli::interrupt::{self, Watch};
use mlxk_cli::prompt::Asked;
use mlxk_cli::{Form, Output};
use mlxk_core::{Error, Kind, Places, Record, Result, inspect};
use mlxk_infer::generate::{Bound, End, Reason};
use mlxk_infer::request::Preset;
use mlxk_infer::{Event, Model, Request, Runner};
use serde_json::Value;

pub use bench::bench;
pub use flags::{Flags, Work};
use page::Page;
pub use page::Reasoning;

/// How to ask, and how to write.
#[derive(Clone, Debug)]
pub struct Manner {
    /// What holds for every request that does not say otherwise.
    pub preset: Preset,
    /// What people see of reasoning.
    pub reasoning: Reasoning,
    /// Whether they read it on a terminal.
    pub terminal: bool,
    /// Whether reasoning may be dim.
    pub colours: bool,
    /// How the model works.
    pub work: Work,
    /// Whether text is written as it comes.
    pub stream: bool,
    /// Whether to tell on stderr how fast it went.
    pub verbose: bool,
}

/// Asks `model`, as typed, and writes each answer to `out`. A request that fails is reported
/// there, and the next one is answered.
///
/// # Errors
/// If the model cannot be found or loaded, a prompt cannot be answered, or `out` not be written.
pub fn ask(
    model: &str,
    asked: Asked,
    manner: &Manner,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    let found = find(&Record::default().with("name", model), places)?;
    let inspected = inspect(&found)?;
    let runner = work::load(&inspected, &manner.work, manner.verbose, places, out)?;
    let asking = |runner| Asking { typed: model, name: &found.name, runner, manner };
    match asked {
        Asked::Anything => {
            let history = mlxk_cli::places::state().map(|state| state.join("history"));
            chat::chat(&found.name, runner, manner, history, out)?;
        }
        Asked::Prompt(prompt) => {
            let mut asking = asking(runner);
            asking.answer(Record::default().with("prompt", prompt), out)?;
            work::keep(&inspected, &manner.work, &asking.runner)?;
        }
        Asked::Requests => {
            let mut runner = runner;
            many::answer(&mut runner, &found.name, manner, out)?;
            work::keep(&inspected, &manner.work, &runner)?;
        }
    }
    Ok(())
}

/// A model that is being asked.
struct Asking<'a> {
    /// Its name as typed.
    typed: &'a str,
    /// Its name in full.
    name: &'a str,
    runner: Runner<Model>,
    manner: &'a Manner,
}

impl Asking<'_> {
    /// Answers one request, and writes the answer in the form that is wanted.
    fn answer(&mut self, record: Record, out: &mut Output) -> Result<()> {
        let request = Request::parse(&record, &self.manner.preset)?;
        let watch = OnceCell::new();
        let (answer, end) = self.generate(&request, &watch, out)?;
        let told = answer.record().merge(end.record());
        match out.form {
            Form::Human if self.manner.stream => {}
            Form::Human => out.text(&answer.page)?,
            Form::Ndjson => out.lines([&record.with("model", self.name).merge(told)])?,
            Form::Json => {
                let asked = Record::default().with("model", self.typed);
                out.envelope(asked.merge(record).merge(told))?;
            }
        }
        if let (Form::Human, Some(why)) = (out.form, cut(&end)) {
            eprintln!("[Output cut at {} tokens: {why}]", end.completion_tokens);
        }
        Ok(())
    }

    /// The answer and how it ended; a page for people is written as it comes. From its first piece
    /// on `watch` watches for Ctrl-C: before there is nothing to end well, and it may kill at once.
    fn generate(
        &mut self,
        request: &Request,
        watch: &OnceCell<Watch>,
        out: &mut Output,
    ) -> Result<(Answer, End)> {
        let started = Instant::now();
        let mut first = None;
        let mut answer = Answer::default();
        let mut page = Page::new(self.manner);
        let interrupted = || watch.get().is_some_and(Watch::caught);
        for event in self.runner.generate(request, &interrupted)? {
            watch.get_or_init(interrupt::watch);
            let event = match event {
                Ok(event) => event,
                Err(e) => {
                    let rest = page.close();
                    if out.form == Form::Human && !rest.is_empty() {
                        out.text(rest)?;
                    }
                    return Err(e);
                }
            };
            let shown = page.write(&event);
            if out.form == Form::Human && self.manner.stream && !shown.is_empty() {
                out.text(&shown)?;
            }
            answer.page += &shown;
            match event {
                Event::End(end) => {
                    if self.manner.verbose {
                        tell(&end, started, first.unwrap_or_else(Instant::now));
                    }
                    return Ok((answer, end));
                }
                event => answer.hear(event),
            }
            first.get_or_insert_with(Instant::now);
        }
        Err(Error::new(Kind::Internal, "", "an answer without an end"))
    }
}

/// All of an answer.
#[derive(Default)]
struct Answer {
    /// As people see it.
    page: String,
    reasoning: String,
    text: String,
    calls: Vec<Value>,
    logprobs: Vec<Value>,
}

impl Answer {
    /// Takes what came; how it ended is told elsewhere.
    fn hear(&mut self, event: Event) {
        match event {
            Event::Logprobs(told) => self.logprobs.push(told.record()),
            Event::Reasoning(text) => self.reasoning += &text,
            Event::Text(text) => self.text += &text,
            Event::Call(call) => self.calls.push(call.record()),
            Event::End(_) => {}
        }
    }

    fn record(&self) -> Record {
        let mut record = Record::default().with("response", &*self.text);
        if !self.reasoning.is_empty() {
            record = record.with("reasoning", &*self.reasoning);
        }
        if !self.logprobs.is_empty() {
            record = record.with("logprobs", self.logprobs.clone());
        }
        match self.calls.is_empty() {
            true => record,
            false => record.with("tool_calls", self.calls.clone()),
        }
    }
}

/// What cut the answer, if something did.
fn cut(end: &End) -> Option<&'static str> {
    match end.reason {
        Reason::Length(Bound::Asked) => Some("--max-tokens"),
        Reason::Length(Bound::Default) => Some("the default, --max-tokens allows more"),
        Reason::Length(Bound::Window) => Some("the model's context is full"),
        Reason::Length(Bound::Memory) => Some("there is no more memory"),
        Reason::Stop | Reason::Calls | Reason::Interrupted => None,
    }
}

fn tell(end: &End, started: Instant, first: Instant) {
    let before = (first - started).as_secs_f64();
    let after = first.elapsed().as_secs_f64();
    let rate = |tokens: u64, seconds: f64| tokens as f64 / seconds.max(1e-9);
    eprintln!(
        "\nprompt {} tokens, {:.1} tok/s; answer {} tokens, {:.1} tok/s; seed {}",
        end.prompt_tokens,
        rate(end.prompt_tokens, before),
        end.completion_tokens,
        rate(end.completion_tokens.saturating_sub(1), after),
        end.seed,
    );
}
