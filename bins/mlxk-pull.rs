//! mlxk-pull: downloads models from the Hub into the cache.

#[path = "transfer/files.rs"]
mod files;
#[path = "transfer/pull.rs"]
mod pull;

use std::process::ExitCode;

use clap::Parser;
use mlxk_cli::{FileFlags, Form, FormFlags, Input, Output, Tool, completion};
use mlxk_core::{Error, Result};
use serde_json::{Value, json};

use pull::Options;

/// Download models from the Hub into the cache
///
/// Cached files are not downloaded again, and an interrupted run is resumed. Every file is verified
/// before it gets its final name. Without names, the models of the records on standard input are
/// updated.
#[derive(Parser)]
#[command(name = "mlxk-pull", version, after_help = EXAMPLES)]
struct Pull {
    /// A model: org/name, name@revision, part of the name of one in the cache; - for standard input
    #[arg(value_name = "MODEL", add = completion::models())]
    models: Vec<String>,
    #[command(flatten)]
    files: FileFlags,
    /// Download nothing; list the files that would be downloaded, and their size
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Download again only the files that records of `mlxk-health --verify` report as damaged
    #[arg(long, conflicts_with_all = ["branch", "include", "exclude"])]
    repair: bool,
    /// Ignored: interrupted downloads are always resumed
    #[arg(long)]
    force_resume: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-pull mlx-community/SmolLM2-135M-Instruct
  mlxk-pull --dry-run org/model@v1.0 --include '*.safetensors'
  mlxk-ls | mlxk-pull                   update all models
  mlxk-health --verify | mlxk-pull --repair";

impl Tool for Pull {
    const COMMAND: &'static str = "pull";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn data(&self, error: &Error) -> Value {
        json!({
            "model": self.models.first(),
            "download_status": "failed",
            "message": error.to_string(),
            "expanded_name": null,
        })
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
