//! mlxk-show: shows what a model on disk is.

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::show::{self, Part, Wish};
use mlxk_cli::{Form, FormFlags, Input, Output, Tool, completion};
use mlxk_core::Result;

/// Show what a model on disk is: architecture, size, health, files, configuration
///
/// Without names, the models of the records on standard input are shown.
#[derive(Parser)]
#[command(name = "mlxk-show", version, after_help = EXAMPLES)]
struct Show {
    /// A model: org/name, part of that, name@revision, a path; - for standard input
    #[arg(value_name = "MODEL", add = completion::models())]
    models: Vec<String>,
    /// The files instead of the metadata
    #[arg(long)]
    files: bool,
    /// The whole config.json instead of the metadata
    #[arg(long)]
    config: bool,
    /// Hash the files of a managed workspace anew, and take them as its unmodified state
    #[arg(long)]
    recalc_hash: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-show SmolLM2
  mlxk-show --files ./my-workspace
  mlxk-show SmolLM2 | jq .context_length
  mlxk-ls | mlxk-show --config | jq -r '.config.model_type' | sort | uniq -c";

impl Tool for Show {
    const COMMAND: &'static str = "show";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let part = match self {
            Show { files: true, .. } => Part::Files,
            Show { config: true, .. } => Part::Config,
            _ => Part::Metadata,
        };
        let wish = Wish { part, rehash: self.recalc_hash };
        show::show(Input::required(&self.models)?, wish, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Show>()
}
