//! mlxk-rm: removes models from the cache.

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::rm::{self, Care};
use mlxk_cli::{Form, FormFlags, Input, Output, Tool, completion, places};
use mlxk_core::Result;

/// Remove models from the cache, with the files that nothing else uses
///
/// Without names, the models of the records on standard input go: name@revision, or a record with
/// a hash, is that revision only. Workspaces are never removed.
#[derive(Parser)]
#[command(name = "mlxk-rm", version, after_help = EXAMPLES)]
struct Rm {
    /// A model: org/name, part of that, name@revision; - for standard input
    #[arg(value_name = "MODEL", add = completion::models())]
    models: Vec<String>,
    /// Also if only part of a name is given, or a download is under way
    #[arg(short, long)]
    force: bool,
    /// Say what would go and how many bytes that frees; remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Remove what no name leads to: old revisions, downloads that stood still for an hour,
    /// files that no model uses
    #[arg(long, conflicts_with = "models")]
    prune: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-rm --dry-run mlx-community/SmolLM2-135M-Instruct
  mlxk-rm --force smollm2               the one model of that name
  mlxk-rm --prune --dry-run
  mlxk-ls --all -f 'accessed>90d' | mlxk-rm";

impl Tool for Rm {
    const COMMAND: &'static str = "rm";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let care =
            Care { force: self.force, dry_run: self.dry_run, only_tests: places::only_tests() };
        match self.prune {
            true => rm::prune(care, &mlxk_cli::places()?, out),
            false => rm::remove(Input::required(&self.models)?, care, &mlxk_cli::places()?, out),
        }
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Rm>()
}
