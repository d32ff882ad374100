//! mlxk-serve: answers over HTTP, in the APIs of OpenAI and Anthropic.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

#[path = "sampling/mod.rs"]
mod sampling;
#[path = "serve/mod.rs"]
mod serve;

use std::process::ExitCode;

use clap::{ArgAction, Parser};
use mlxk_cli::{Form, Output, Tool, completion};
use mlxk_core::Result;

use serve::{DistributedFlags, EmbedFlags, LimitFlags, ListenFlags, LogFlags};

/// Serve models over HTTP, in the APIs of OpenAI and Anthropic
///
/// A model is loaded when a request first names it, or at the start with --model.
#[derive(Parser)]
#[command(name = "mlxk-serve", version, after_help = EXAMPLES)]
struct Serve {
    /// Load these models at the start
    #[arg(value_name = "MODEL", add = completion::models())]
    models: Vec<String>,
    /// Load this model at the start; may be repeated
    #[arg(long, value_name = "MODEL", action = ArgAction::Append, add = completion::models())]
    model: Vec<String>,
    #[command(flatten)]
    listen: ListenFlags,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    distributed: DistributedFlags,
    #[command(flatten)]
    embed: EmbedFlags,
    #[command(flatten)]
    log: LogFlags,
    /// Write a record when clients can connect
    #[arg(long, help_heading = "Output")]
    ndjson: bool,
    /// Write one JSON object when clients can connect: {status, command, data, error}
    #[arg(long, conflicts_with = "ndjson", help_heading = "Output")]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-serve --model SmolLM2
  mlxk-serve --host 0.0.0.0 --api-key-file ~/.config/mlxk/keys
  mlxk-serve --socket /run/user/1000/mlxk.sock --ttl 600
  mlxk-serve --embed-backend http://localhost:8002
  mlxk-serve --distributed --hostfile hosts.json --rank 0 --model SmolLM2
  curl localhost:8000/v1/chat/completions -d \\
    '{\"model\": \"SmolLM2\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'";

impl Tool for Serve {
    const COMMAND: &'static str = "serve";

    fn form(&self) -> Form {
        match self {
            Serve { json: true, .. } => Form::Json,
            Serve { ndjson: true, .. } => Form::Ndjson,
            _ => Form::Human,
        }
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let places = mlxk_cli::places()?;
        let Serve { model, models, listen, limits, distributed, embed, log, .. } = self;
        let models = [&models[..], &model[..]].concat();
        serve::serve(&models, listen, limits, distributed, (embed, log), places, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Serve>()
}
