//! mlxk-push: sends a workspace to the Hub.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use mlxk_cli::{Form, FormFlags, Output, Tool};
use mlxk_core::Result;
use mlxk_hub::push::PushOptions;
use mlxk_move::push::{self, Manner};

/// Send a workspace to the Hub, as one commit of what differs
///
/// Nothing is sent that the Hub has already, and a push that was cut short goes on where it stopped.
/// What .hfignore names stays here, and so does all that tells of this machine.
#[derive(Parser)]
#[command(name = "mlxk-push", version, after_help = EXAMPLES, group = visibility())]
struct Push {
    /// The workspace: a directory, or the name of one in MLXK_WORKSPACE_HOME
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
    /// Where to: org/name
    #[arg(value_name = "REPO", required_unless_present = "check_only", default_value = "")]
    repo: String,
    /// Nobody else may see it: a new repository is private, and a public one is refused
    #[arg(long)]
    private: bool,
    /// Everybody may see it
    #[arg(long, conflicts_with = "private")]
    public: bool,
    /// Make the repository or the branch if there is none
    #[arg(long)]
    create: bool,
    /// The branch
    #[arg(long, value_name = "NAME", default_value = "main")]
    branch: String,
    /// The message of the commit
    #[arg(long, value_name = "TEXT", default_value = "mlxk push")]
    commit: String,
    /// Remove from the Hub what is not in the workspace
    #[arg(long)]
    delete_missing: bool,
    /// Look at the workspace, and ask nobody
    #[arg(long, conflicts_with = "dry_run")]
    check_only: bool,
    /// Say what would change; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also name the commit's address
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-push --check-only ./my-model
  mlxk-push --dry-run ./my-model org/my-model
  mlxk-push --private --create ./my-model org/my-model --commit 'First version'";

/// What goes to the Hub is for all or for few: one has to say which.
fn visibility() -> ArgGroup {
    let flags = ["private", "public", "check_only", "dry_run"];
    ArgGroup::new("visibility").args(flags).required(true).multiple(true)
}

impl Tool for Push {
    const COMMAND: &'static str = "push";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let wish = PushOptions {
            repo: self.repo.clone(),
            branch: self.branch.clone(),
            message: self.commit.clone(),
            private: self.private,
            create: self.create,
            delete_missing: self.delete_missing,
            dry_run: self.dry_run,
        };
        let (verbose, events) = (self.verbose, self.output.ndjson());
        let manner = Manner { check_only: self.check_only, verbose, events };
        push::push(&self.directory, &wish, manner, mlxk_cli::remote()?, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Push>()
}
