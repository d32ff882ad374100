//! mlxk-convert: makes an MLX workspace out of a model in another form.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use mlxk_cli::interrupt::{self, Watch};
use mlxk_cli::{Bar, Form, FormFlags, Output, Tool, convert};
use mlxk_core::reindex::repair_index;
use mlxk_core::{Places, Record, Result, verify};
use mlxk_gguf::{Float, Progress};

/// Make an MLX workspace out of a GGUF file, or out of one whose index is wrong
///
/// Q4_0, Q4_1 and Q8_0 are repacked without loss and plain matrices kept; other types are
/// unpacked. The tokenizer and the chat template come out of the file.
#[derive(Parser)]
#[command(name = "mlxk-convert", version, after_help = EXAMPLES)]
struct Convert {
    /// The file: a model of the architecture llama, qwen2, qwen3 or smollm3; with --repair-index
    /// the workspace
    #[arg(value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    source: PathBuf,
    /// The directory to make; a bare name lies in MLXK_WORKSPACE_HOME if that is set
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    target: PathBuf,
    /// Copy a workspace, and make the index of its weights anew
    #[arg(long)]
    repair_index: bool,
    /// Also if what comes of it is not healthy
    #[arg(long, requires = "repair_index")]
    skip_health: bool,
    /// The type of vectors, and of weights that must be unpacked; default: what suits the file
    #[arg(long, value_name = "TYPE", value_parser = dtypes(), conflicts_with = "repair_index")]
    dtype: Option<Float>,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-convert SmolLM2-135M-Instruct.Q4_1.gguf ./SmolLM2
  mlxk-convert model.gguf ./model | mlxk-health
  mlxk-convert --repair-index ./broken ./whole";

fn dtypes() -> impl TypedValueParser<Value = Float> {
    PossibleValuesParser::new(Float::NAMES).try_map(|name| name.parse::<Float>())
}

impl Tool for Convert {
    const COMMAND: &'static str = "convert";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let watch = interrupt::watch();
        let places = mlxk_cli::places()?;
        let made = match self.repair_index {
            true => self.repair(&places, &watch),
            false => self.import(&places, &watch),
        };
        if made.is_err() {
            drop(watch); // dies of the signal, rather than tell of it
        }
        convert::tell(made?, out)
    }
}

impl Convert {
    fn import(&self, places: &Places, watch: &Watch) -> Result<Record> {
        let bar = ProgressBar::no_length().with_style(style());
        let progress = |Progress { done, total }| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            watch.check()
        };
        let made = mlxk_gguf::convert(&self.source, &self.target, self.dtype, places, progress);
        bar.finish_and_clear();
        made
    }

    fn repair(&self, places: &Places, watch: &Watch) -> Result<Record> {
        let bar = Bar::new();
        let progress = |progress: verify::Progress| {
            bar.heed(progress);
            watch.check()
        };
        repair_index(&self.source, &self.target, !self.skip_health, places, progress)
    }
}

/// Drawn on stderr, and only if that is a terminal.
fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} tensors, {eta}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn main() -> ExitCode {
    mlxk_cli::main::<Convert>()
}
