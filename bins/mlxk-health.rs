//! mlxk-health: says whether models on disk are whole.

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::health::{self, Depth};
use mlxk_cli::{Form, FormFlags, Input, Output, Reporter, Tool, completion};
use mlxk_core::Result;

/// Say whether models on disk are whole, and exit 1 if one is not
///
/// Checks names, sizes and headers; reads no weights unless told to --verify. Without names, the
/// records on standard input are checked and passed on with `health`, `reason` and all else that is
/// said of a model set anew; without those, every model.
#[derive(Parser)]
#[command(name = "mlxk-health", version, after_help = EXAMPLES)]
struct Health {
    /// A model: org/name, part of that, name@revision, a path; - for standard input
    #[arg(value_name = "MODEL", add = completion::models())]
    models: Vec<String>,
    /// Read every file, and compare its digest with what it should be
    #[arg(long)]
    verify: bool,
    /// Also check what libraries fetched into the .hf_cache of workspaces
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-health                           every model
  mlxk-health SmolLM2 && mlxk-run SmolLM2 Hello
  mlxk-health --verify                  every byte of them, with all cores
  mlxk-ls --all | mlxk-health | jq -c 'select(.health == \"unhealthy\")'";

impl Tool for Health {
    const COMMAND: &'static str = "health";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let reporter = self.verify.then(Reporter::bar);
        let depth = Depth { reporter: reporter.as_ref(), artifacts: self.verbose };
        health::check(Input::choose(&self.models)?, depth, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Health>()
}
