//! mlxk-run: asks a model, and writes its answer as it comes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, ValueEnum};
use mlxk_ask::{ChoiceFlags, Manner, Reasoning, WorkFlags};
use mlxk_cli::prompt::asked;
use mlxk_cli::{Form, Output, Tool, completion};
use mlxk_core::{Error, Kind, Result};
use mlxk_infer::request::{Options, Preset};

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
    /// Let the answer be JSON that the schema in this file allows
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Let the answer follow the grammar in this file
    #[arg(long, value_name = "FILE", conflicts_with = "json_schema")]
    grammar: Option<PathBuf>,
    /// What to show of what the model thinks before it answers
    #[arg(long, value_name = "WHAT")]
    reasoning: Option<Visible>,
    /// The same as --reasoning hide
    #[arg(long, conflicts_with = "reasoning")]
    no_reasoning: bool,
    /// Tell the chat template something more; may be repeated
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    template_var: Vec<String>,
    /// Give the prompt to the model as it is
    #[arg(long, conflicts_with_all = ["system", "template_var"])]
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
    #[command(flatten)]
    choice: ChoiceFlags,
    #[command(flatten)]
    work: WorkFlags,
}

/// What is shown of reasoning.
#[derive(Clone, Copy, ValueEnum)]
enum Visible {
    /// Reasoning before the answer; the default on a terminal
    Show,
    /// The answer alone; the default elsewhere
    Hide,
    /// Reasoning alone
    Only,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-run SmolLM2 'What is the capital of France?'
  mlxk-run SmolLM2 - 'Sum this up in a sentence.' < notes.txt
  mlxk-run SmolLM2 --temperature 0 --no-chat-template 'Once upon a time'
  jq -c '{id, prompt: .title}' posts.jsonl | mlxk-run SmolLM2 --ndjson -";

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
        let manner = self.manner()?;
        let asked = asked(&self.words, self.prompt.as_deref(), self.form())?;
        mlxk_ask::ask(&self.model, asked, &manner, &mlxk_cli::places()?, out)
    }
}

impl Run {
    fn manner(&self) -> Result<Manner> {
        let options = Options {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            ..self.choice.options()?
        };
        options.check().map_err(|e| Error::new(Kind::Command, "", e.message))?;
        let colours = mlxk_cli::output::colours();
        let reasoning = match (self.no_reasoning, self.reasoning) {
            (true, _) | (_, Some(Visible::Hide)) => Reasoning::Hide,
            (_, Some(Visible::Only)) => Reasoning::Only,
            (_, Some(Visible::Show)) => Reasoning::Show,
            (_, None) if mlxk_cli::output::to_terminal() => Reasoning::Show,
            (_, None) => Reasoning::Hide,
        };
        let preset = Preset {
            options,
            system: self.system.clone(),
            raw: self.no_chat_template,
            variables: mlxk_ask::variables(&self.template_var)?,
            rules: mlxk_ask::rules(self.json_schema.as_deref(), self.grammar.as_deref())?,
        };
        let (work, stream) = (self.work.work()?, !self.no_stream);
        Ok(Manner { preset, reasoning, colours, work, stream, verbose: self.verbose })
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Run>()
}
