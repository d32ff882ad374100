//! mlxk-run: asks a model, and writes its answer as it comes.

use std::cell::OnceCell;
use std::process::ExitCode;
use std::time::Instant;

use clap::{ArgAction, Parser};
use mlxk_cli::examine::{Examined, examine, find};
use mlxk_cli::prompt::{Asked, asked};
use mlxk_cli::requests::{at, requests};
use mlxk_cli::{Form, Output, Tool, completion, interrupt};
use mlxk_core::{Error, Kind, Record, Result};
use mlxk_infer::generate::{Bound, End, Reason};
use mlxk_infer::request::Options;
use mlxk_infer::{Event, Model, Request, Runner};

/// Ask a model: its answer is written to standard output as it comes
///
/// Standard input is read only for `-` (or with MLXK2_ENABLE_PIPES=1), as text before the prompt.
#[derive(Parser)]
#[command(name = "mlxk-run", version, after_help = EXAMPLES)]
struct Run {
    /// The model: org/name, part of that, name@revision, a path
    #[arg(add = completion::models())]
    model: String,
    /// What to ask, in one or more words; - for standard input
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    /// What to ask, instead of words
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What the model is told before
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// End the answer after this many tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<u64>,
    /// 0: always the likeliest token; the higher the more varied
    #[arg(long, value_name = "X")]
    temperature: Option<f32>,
    /// Choose from the likeliest tokens that together have this probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Choose from this many of the likeliest tokens; 0 for all
    #[arg(long, value_name = "N")]
    top_k: Option<u32>,
    /// Choose from tokens at least this likely beside the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Above 1, what was said lately becomes less likely
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// The same seed and request give the same answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT", action = ArgAction::Append)]
    stop: Vec<String>,
    /// Give the prompt to the model as it is
    #[arg(long, conflicts_with = "system")]
    no_chat_template: bool,
    /// Write the answer when it is complete
    #[arg(long)]
    no_stream: bool,
    /// Tell on standard error how fast it went, and the seed
    #[arg(long)]
    verbose: bool,
    /// Write a record; with -, read a request from each line, and write a record for each
    #[arg(long)]
    ndjson: bool,
    /// Write one document: {status, command, data, error}
    #[arg(long, conflicts_with = "ndjson")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-run SmolLM2 'What is the capital of France?'
  mlxk-run SmolLM2 - 'Sum this up in a sentence.' < notes.txt
  mlxk-run SmolLM2 --temperature 0 --no-chat-template 'Once upon a time'
  jq -c '{id, prompt: .title}' posts.jsonl | mlxk-run SmolLM2 --ndjson -";

/// An answer, when it is complete.
struct Answer {
    text: String,
    end: End,
}

impl Tool for Run {
    const COMMAND: &'static str = "run";

    fn form(&self) -> Form {
        match self {
            Run { json: true, .. } => Form::Json,
            Run { ndjson: true, .. } => Form::Ndjson,
            _ => Form::Human,
        }
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        self.options().check().map_err(|e| Error::new(Kind::Command, "", e.message))?;
        let asked = asked(&self.words, self.prompt.as_deref(), self.ndjson)?;
        let named = Record::default().with("name", &*self.model);
        let model = examine(&find(&named, &mlxk_cli::places()?)?)?;
        let mut runner = self.load(&model, out)?;
        let name = &model.facts.found.name;
        match asked {
            Asked::Prompt(prompt) => {
                let record = Record::default().with("prompt", prompt);
                self.answer(&mut runner, name, record, out)?;
            }
            Asked::Requests => {
                for request in requests() {
                    let done = request.and_then(|(record, line)| {
                        let done = self.answer(&mut runner, name, record, out);
                        done.map_err(|e| at(line, e))
                    });
                    done.or_else(|e| out.error(&e))?;
                }
            }
        }
        Ok(())
    }
}

impl Run {
    fn options(&self) -> Options {
        Options {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
        }
    }

    fn load(&self, model: &Examined, out: &Output) -> Result<Runner<Model>> {
        let started = Instant::now();
        let Examined { facts, health, plan, .. } = model;
        if let Some(warning) = mlxk_infer::admit(facts, health, plan)? {
            out.remark(&warning, "a shorter --max-tokens needs less");
        }
        let runner = Runner::new(mlxk_infer::load(facts, plan)?, facts, plan)?;
        if self.verbose {
            eprintln!("loaded {} in {:.2} s", facts.found.name, started.elapsed().as_secs_f64());
        }
        Ok(runner)
    }

    /// Answers one request, and writes the answer in the form that is wanted.
    fn answer(
        &self,
        runner: &mut Runner<Model>,
        name: &str,
        record: Record,
        out: &mut Output,
    ) -> Result<()> {
        let system = self.system.as_deref();
        let request = Request::parse(&record, &self.options(), system, self.no_chat_template)?;
        // Before the first token there is nothing to end well, and Ctrl-C may kill at once.
        let watch = OnceCell::new();
        let interrupted = || watch.get_or_init(interrupt::watch).caught();
        let Answer { text, end } = self.generate(runner, &request, &interrupted, out)?;
        let told = Record::default().with("response", &*text).merge(end.record());
        match out.form {
            Form::Human if self.no_stream => out.text(&format!("{text}\n"))?,
            Form::Human => out.text("\n")?,
            Form::Ndjson => out.lines([&record.with("model", name).merge(told)])?,
            Form::Json => {
                let asked = Record::default().with("model", &*self.model);
                out.envelope(asked.merge(record).merge(told))?;
            }
        }
        if let (Form::Human, Some(why)) = (out.form, cut(&end)) {
            eprintln!("[Output cut at {} tokens: {why}]", end.completion_tokens);
        }
        Ok(())
    }

    fn generate(
        &self,
        runner: &mut Runner<Model>,
        request: &Request,
        interrupted: &dyn Fn() -> bool,
        out: &mut Output,
    ) -> Result<Answer> {
        let started = Instant::now();
        let mut first = None;
        let mut text = String::new();
        for event in runner.generate(request, interrupted)? {
            match event? {
                Event::Text(piece) => {
                    first.get_or_insert_with(Instant::now);
                    if out.form == Form::Human && !self.no_stream {
                        out.text(&piece)?;
                    }
                    text += &piece;
                }
                Event::End(end) => {
                    if self.verbose {
                        tell(&end, started, first.unwrap_or_else(Instant::now));
                    }
                    return Ok(Answer { text, end });
                }
            }
        }
        Err(Error::new(Kind::Internal, "", "an answer without an end"))
    }
}

/// What cut the answer, if something did.
fn cut(end: &End) -> Option<&'static str> {
    match end.reason {
        Reason::Length(Bound::Asked) => Some("--max-tokens"),
        Reason::Length(Bound::Default) => Some("the default, --max-tokens allows more"),
        Reason::Length(Bound::Window) => Some("the model's context is full"),
        Reason::Stop | Reason::Interrupted => None,
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

fn main() -> ExitCode {
    mlxk_cli::main::<Run>()
}
