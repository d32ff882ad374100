//! mlxk-run: runs a model on a prompt, and writes the answer as it is generated.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

#[path = "run/mod.rs"]
mod run;
#[path = "sampling/mod.rs"]
mod sampling;

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::examine::find;
use mlxk_cli::prompt::asked;
use mlxk_cli::{Form, Output, Tool, completion};
use mlxk_core::{Record, Result, Task, inspect};

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
  mlxk-run whisper --audio talk.m4a --format srt > talk.srt
  jq -c '{id, prompt: .title}' posts.jsonl | mlxk-run SmolLM2 --ndjson -";

impl Tool for Run {
    const COMMAND: &'static str = "run";

    fn form(&self) -> Form {
        self.flags.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let places = mlxk_cli::places()?;
        let found = find(&Record::default().with("name", &*self.model), &places);
        let inspected = found.and_then(|found| inspect(&found));
        if let Ok(model) = &inspected
            && model.plan.task == Task::Audio
        {
            let (input, options, ui) = self.flags.speech(&self.words)?;
            return run::transcribe(model, input, &options, ui, out);
        }
        match &inspected {
            Ok(model) => self.flags.given.suit_text(&model.facts.found.name)?,
            Err(_) if self.flags.given.has_audio() => return inspected.map(drop),
            Err(_) => {}
        }
        let options = self.flags.options()?;
        if self.flags.bench {
            return run::bench(&inspected?, &options, &places, out);
        }
        let asked = asked(&self.words, self.flags.prompt.as_deref(), self.form())?;
        run::answer(&self.model, inspected, asked, &options, &places, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Run>()
}
