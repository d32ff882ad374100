//! mlxk-run: runs a model on a prompt, and writes the answer as it is generated.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

#[path = "run/mod.rs"]
mod run;
#[path = "sampling/mod.rs"]
mod sampling;

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::prompt::asked;
use mlxk_cli::{Form, Output, Tool, completion};
use mlxk_core::Result;

use run::Flags;

/// Run a model on a prompt, and write the answer to standard output as it is generated
///
/// Standard input is read only for `-` (or with MLXK2_ENABLE_PIPES=1), as text before the prompt.
#[derive(Parser)]
#[command(name = "mlxk-run", version, after_help = EXAMPLES)]
struct Run {
    /// The model: org/name, part of that, name@revision, a path
    #[arg(add = completion::models())]
    model: String,
    /// The prompt, in one or more words; - for standard input
    #[arg(value_name = "PROMPT")]
    words: Vec<String>,
    #[command(flatten)]
    flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-run SmolLM2 'What is the capital of France?'
  mlxk-run SmolLM2 - 'Sum this up in a sentence.' < notes.txt
  mlxk-run SmolLM2 --temperature 0 --no-chat-template 'Once upon a time'
  mlxk-run qwen2-vl --image photo.jpg 'What is on the table?'
  jq -c '{id, prompt: .title}' posts.jsonl | mlxk-run SmolLM2 --ndjson -";

impl Tool for Run {
    const COMMAND: &'static str = "run";

    fn form(&self) -> Form {
        self.flags.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let (options, places) = (self.flags.options()?, mlxk_cli::places()?);
        if self.flags.bench {
            return run::bench(&self.model, &options, &places, out);
        }
        let asked = asked(&self.words, self.flags.prompt.as_deref(), self.form())?;
        run::answer(&self.model, asked, &options, &places, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Run>()
}
