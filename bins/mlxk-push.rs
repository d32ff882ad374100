//! mlxk-push: uploads a workspace to the Hub.

#[path = "transfer/push.rs"]
mod push;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use mlxk_cli::{Form, FormFlags, Output, Tool};
use mlxk_core::{Error, Result};
use mlxk_hub::push::PushOptions;
use serde_json::{Value, json};

use push::Options;

/// Upload the changes of a workspace to the Hub as one commit
///
/// Content that the Hub has is not sent again, and an interrupted push is resumed. Files that
/// .hfignore matches are not sent, nor are files that describe this machine.
#[derive(Parser)]
#[command(name = "mlxk-push", version, after_help = EXAMPLES, group = visibility())]
struct Push {
    /// The workspace: a directory, or the name of one in MLXK_WORKSPACE_HOME
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
    /// The repository: org/name
    #[arg(value_name = "REPO", required_unless_present = "check_only", default_value = "")]
    repo: String,
    /// Push privately: a new repository is private, and a public one is refused
    #[arg(long)]
    private: bool,
    /// Allow a public repository
    #[arg(long, conflicts_with = "private")]
    public: bool,
    /// Create the repository or the branch if it does not exist
    #[arg(long)]
    create: bool,
    /// Branch to push to
    #[arg(long, value_name = "NAME", default_value = "main")]
    branch: String,
    /// Commit message
    #[arg(long, value_name = "TEXT", default_value = "mlxk push")]
    commit: String,
    /// Delete files on the Hub that are not in the workspace
    #[arg(long)]
    delete_missing: bool,
    /// Check the health of the workspace without network access
    #[arg(long, conflicts_with = "dry_run")]
    check_only: bool,
    /// Report what would change; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Send files that look like secrets: keys, tokens, .env
    #[arg(long)]
    allow_secrets: bool,
    /// Also print the URL of the commit
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

/// Flags of which at least one is required: a push must be explicitly private or public.
fn visibility() -> ArgGroup {
    let flags = ["private", "public", "check_only", "dry_run"];
    ArgGroup::new("visibility").args(flags).required(true).multiple(true)
}

impl Tool for Push {
    const COMMAND: &'static str = "push";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn data(&self, error: &Error) -> Value {
        json!({
            "repo_id": self.repo,
            "branch": self.branch,
            "commit_sha": null,
            "commit_url": null,
            "repo_url": format!("https://huggingface.co/{}", self.repo),
            "uploaded_files_count": null,
            "no_changes": null,
            "message": error.to_string(),
            "experimental": false,
            "dry_run": self.dry_run,
        })
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
        let (check_only, allow_secrets) = (self.check_only, self.allow_secrets);
        let options = Options { check_only, allow_secrets, verbose, events };
        push::push(&self.directory, &wish, options, mlxk_cli::remote()?, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Push>()
}
