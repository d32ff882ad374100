//! mlxk-pull: fetches models from the Hub into the cache.

#[path = "transfer/files.rs"]
mod files;
#[path = "transfer/pull.rs"]
mod pull;

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::{FileFlags, Form, FormFlags, Input, Output, Tool, completion};
use mlxk_core::Result;

use pull::Options;

/// Fetch models from the Hub into the cache
///
/// What is there already is not fetched again, and a run that was cut short goes on where it
/// stopped. Every file is verified before it gets its name. Without names, the models of the
/// records on standard input are brought up to date.
#[derive(Parser)]
#[command(name = "mlxk-pull", version, after_help = EXAMPLES)]
struct Pull {
    /// A model: org/name, name@revision, part of the name of one in the cache; - for standard input
    #[arg(value_name = "MODEL", add = completion::models())]
    models: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    /// Fetch nothing; say what would come, and how much that is
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Fetch again the files that records of `mlxk-health --verify` say are bad, and only those
    #[arg(long, conflicts_with_all = ["branch", "include", "exclude"])]
    repair: bool,
    /// Nothing: to go on with what was begun needs no flag any more
    #[arg(long)]
    force_resume: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-pull mlx-community/SmolLM2-135M-Instruct
  mlxk-pull --dry-run org/model@v1.0 --include '*.safetensors'
  mlxk-ls | mlxk-pull                   bring everything up to date
  mlxk-health --verify | mlxk-pull --repair";

impl Tool for Pull {
    const COMMAND: &'static str = "pull";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let options = Options {
            files: self.files.clone(),
            dry_run: self.dry_run,
            repair: self.repair,
            events: self.output.ndjson(),
        };
        let input = Input::required(&self.models)?;
        pull::pull(input, &options, mlxk_cli::remote()?, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Pull>()
}
