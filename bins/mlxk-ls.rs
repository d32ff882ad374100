//! mlxk-ls: lists the models on disk.

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::list::{self, Columns, Query, Style};
use mlxk_cli::select::{Filter, Sort};
use mlxk_cli::{Form, FormFlags, Output, Tool, completion};
use mlxk_core::Result;
use mlxk_core::store::Revisions;

/// List the models on disk: the Hugging Face cache and the workspaces
///
/// Without --all, only what is healthy and can run is listed; --json lists everything.
#[derive(Parser)]
#[command(name = "mlxk-ls", version, after_help = EXAMPLES)]
struct Ls {
    /// Part of a name in any case, name@revision, or a path; any of several
    #[arg(value_name = "PATTERN", add = completion::models())]
    patterns: Vec<String>,
    /// Also list what is unhealthy or cannot run
    #[arg(short, long)]
    all: bool,
    /// Every cached revision, not only the current one
    #[arg(long)]
    revisions: bool,
    /// Only models that fulfil a condition, see below; may be repeated
    #[arg(short, long = "filter", value_name = "CONDITION")]
    filters: Vec<Filter>,
    /// Order by accessed, modified, name or size; newest and biggest first
    #[arg(long, value_name = "KEY[:asc|desc]")]
    sort: Option<Sort>,
    /// List at most N models
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// Add the health to the table
    #[arg(long)]
    health: bool,
    /// Whole names and reasons in the table
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    output: FormFlags,
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
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let style = match self.quiet {
            true => Style::Names,
            false => {
                Style::Form(Columns { wide: self.all, health: self.health, verbose: self.verbose })
            }
        };
        list::list(&self.query(out.form), style, &mlxk_cli::places()?, out)
    }
}

impl Ls {
    fn query(&self, form: Form) -> Query {
        Query {
            patterns: self.patterns.clone(),
            revisions: if self.revisions { Revisions::All } else { Revisions::Current },
            filters: self.filters.clone(),
            sort: self.sort,
            limit: self.limit,
            all: self.all || form == Form::Json,
        }
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Ls>()
}
