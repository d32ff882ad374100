//! Answer to a prompt, to the requests on standard input, or to a user at a terminal.

use std::cell::OnceCell;
use std::time::Instant;

use mlxk_cli::interrupt::{self, Watch};
use mlxk_cli::prompt::Asked;
use mlxk_cli::{Form, Output};
use mlxk_core::{Error, Inspected, Kind, Places, Record, Result};
use mlxk_engine::{Model, Runner};
use mlxk_processor::event::{End, FinishReason, LengthLimit};
use mlxk_processor::{Event, Request};

use super::options::RunOptions;
use super::page::Page;
use super::record::Answer;
use super::{batch, chat, load};

/// Loads `model`, as typed, which has been inspected, and writes its answers to `out`. A request that fails is reported
/// there, and the next one is answered.
///
/// # Errors
/// If the model cannot be found or loaded, a prompt cannot be answered, or `out` cannot be written.
pub fn answer(
    model: &str,
    inspected: Result<Inspected>,
    asked: Asked,
    options: &RunOptions,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    if !options.images.is_empty() && !matches!(asked, Asked::Prompt(_)) {
        return Err(Error::command(
            "--image needs a prompt in the arguments or as plain standard input",
        ));
    }
    let inspected = inspected?;
    let found = &inspected.facts.found;
    let mut runner = load::load(&inspected, &options.model, options.verbose, places, out)?;
    match asked {
        Asked::Anything => {
            let history = mlxk_cli::places::state().map(|state| state.join("history"));
            return chat::chat(&found.name, runner, options, history, out);
        }
        Asked::Prompt(prompt) => {
            let mut single =
                Single { typed: model, name: &found.name, runner: &mut runner, options };
            single.answer(Record::default().with("prompt", prompt), out)?;
        }
        Asked::Requests => batch::answer(&mut runner, &found.name, options, out)?,
    }
    load::keep(&inspected, &options.model, &runner)
}

/// Model that answers a single request.
struct Single<'a> {
    /// Name of the model as typed.
    typed: &'a str,
    /// Full name of the model.
    name: &'a str,
    runner: &'a mut Runner<Model>,
    options: &'a RunOptions,
}

impl Single<'_> {
    /// Answers the request, and writes the answer in the form of the output.
    fn answer(&mut self, record: Record, out: &mut Output) -> Result<()> {
        let request = Request::parse(&record, &self.options.preset)?;
        let request = request.with_images(self.options.images.clone())?;
        let watch = OnceCell::new();
        let (answer, page, end) = self.generate(&request, &watch, out)?;
        let told = answer.record().merge(end.record());
        match out.form {
            Form::Human if self.options.stream => {}
            Form::Human => out.text(&page)?,
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

    /// Answer, its text output, and its end; text is written as it is generated. From the first
    /// event on, `watch` records Ctrl-C; before, there is no partial answer, and Ctrl-C ends the
    /// process at once.
    fn generate(
        &mut self,
        request: &Request,
        watch: &OnceCell<Watch>,
        out: &mut Output,
    ) -> Result<(Answer, String, End)> {
        let started = Instant::now();
        let mut first = None;
        let (mut answer, mut all) = (Answer::default(), String::new());
        let mut page = Page::new(self.options);
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
            if out.form == Form::Human && self.options.stream && !shown.is_empty() {
                out.text(&shown)?;
            }
            all += &shown;
            match event {
                Event::End(end) => {
                    if self.options.verbose {
                        tell_speed(&end, started, first.unwrap_or_else(Instant::now));
                    }
                    return Ok((answer, all, end));
                }
                event => answer.add(event),
            }
            first.get_or_insert_with(Instant::now);
        }
        Err(Error::new(Kind::Internal, "", "the answer ended unexpectedly"))
    }
}

/// Limit that truncated the answer, if any.
fn cut(end: &End) -> Option<&'static str> {
    match end.reason {
        FinishReason::Length(LengthLimit::MaxTokens) => Some("--max-tokens"),
        FinishReason::Length(LengthLimit::Default) => Some("the default, --max-tokens allows more"),
        FinishReason::Length(LengthLimit::ContextLength) => Some("the model's context is full"),
        FinishReason::Length(LengthLimit::Memory) => Some("there is no more memory"),
        FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Interrupted => None,
    }
}

fn tell_speed(end: &End, started: Instant, first: Instant) {
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
