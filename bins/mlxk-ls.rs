//! mlxk-ls: lists the models on disk.

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::list::{ListFlags, list};
use mlxk_cli::{Form, Output, Tool};
use mlxk_core::Result;

/// List the models on disk: the Hugging Face cache and the workspaces
///
/// Without --all, only what is healthy and can run is listed; --json lists everything.
#[derive(Parser)]
#[command(name = "mlxk-ls", version, after_help = EXAMPLES)]
struct Ls {
    #[command(flatten)]
    flags: ListFlags,
}

const EXAMPLES: &str = "\
Conditions are KEY OP VALUE, with = != < <= > >=:
  size>1GB  bits<=4  accessed>30d  modified<2h  refs=main  type=chat  capability=vision
  framework=MLX  health=unhealthy  runnable=no
  `accessed>30d` is longer than 30 days ago. Units: KB MB GB TB, KiB ...; s m h d w mo y.

Examples:
  mlxk-ls qwen                          what there is of Qwen
  mlxk-ls --all -f 'size>10GB' --sort size
  mlxk-ls --all | mlxk-health           check everything
  mlxk-ls --all -f 'accessed>90d' | mlxk-rm --dry-run";

impl Tool for Ls {
    const COMMAND: &'static str = "list";

    fn form(&self) -> Form {
        self.flags.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        list(&self.flags.query(out.form), self.flags.style(), &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Ls>()
}
