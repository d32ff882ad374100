//! mlxk-clone: creates a workspace from a model on the Hub or in the cache.

#[path = "transfer/clone.rs"]
mod clone;
#[path = "transfer/files.rs"]
mod files;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::{FileFlags, Form, FormFlags, Output, Tool, completion};
use mlxk_core::{Error, Result};
use serde_json::{Value, json};

use clone::Options;

/// Create a workspace from a model: plain files to inspect, change and push
///
/// Cached files are copied, copy-on-write where the file system supports it; the rest is downloaded.
/// The cache is not changed. An interrupted run is resumed. Without names, the models of the records
/// on standard input become workspaces in MLXK_WORKSPACE_HOME.
#[derive(Parser)]
#[command(name = "mlxk-clone", version, after_help = EXAMPLES)]
struct Clone {
    /// A model: org/name, name@revision, part of the name of one in the cache; - for standard input
    #[arg(value_name = "MODEL", add = completion::models())]
    model: Option<String>,
    /// The directory to create; a bare name is in MLXK_WORKSPACE_HOME if that is set
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    target: Option<PathBuf>,
    #[command(flatten)]
    files: FileFlags,
    /// Create nothing; list the files that would be downloaded, and their size
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not check the health of the clone
    #[arg(long)]
    no_health_check: bool,
    /// Do not print the health of the clone
    #[arg(long)]
    quiet: bool,
    /// Ignored: interrupted downloads are always resumed
    #[arg(long)]
    force_resume: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-clone mlx-community/SmolLM2-135M-Instruct ./SmolLM2
  mlxk-clone org/model@v1.0             into MLXK_WORKSPACE_HOME/model
  mlxk-clone --dry-run org/model ./copy --include '*.json'
  mlxk-clone org/model ./copy | mlxk-health";

impl Tool for Clone {
    const COMMAND: &'static str = "clone";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn data(&self, error: &Error) -> Value {
        json!({
            "model": self.model,
            "clone_status": "error",
            "message": error.to_string(),
            "target_dir": self.target,
            "health_check": !self.no_health_check,
        })
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let options = Options {
            files: self.files.clone(),
            target: self.target.clone(),
            dry_run: self.dry_run,
            health: !self.no_health_check,
            quiet: self.quiet,
            events: self.output.ndjson(),
        };
        clone::clone(self.model.as_ref(), &options, &mlxk_cli::remote()?, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Clone>()
}
