//! mlxk-convert: makes an MLX workspace out of a model in another form.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use mlxk_cli::{Form, FormFlags, Output, Tool, human, interrupt};
use mlxk_core::{Error, Kind, Record, Result};
use mlxk_gguf::{Float, Progress};

/// Make an MLX workspace out of a GGUF file
///
/// Q4_0, Q4_1 and Q8_0 are repacked without loss and plain matrices kept; other types are
/// unpacked. The tokenizer and the chat template come out of the file.
#[derive(Parser)]
#[command(name = "mlxk-convert", version, after_help = EXAMPLES)]
struct Convert {
    /// The file: a model of the architecture llama, qwen2, qwen3 or smollm3
    #[arg(value_name = "MODEL.gguf", value_hint = clap::ValueHint::FilePath)]
    source: PathBuf,
    /// The directory to make; a bare name lies in MLXK_WORKSPACE_HOME if that is set
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    target: PathBuf,
    /// The type of vectors, and of weights that must be unpacked; default: what suits the file
    #[arg(long, value_name = "TYPE", value_parser = dtypes())]
    dtype: Option<Float>,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-convert SmolLM2-135M-Instruct.Q4_1.gguf ./SmolLM2
  mlxk-convert model.gguf ./model | mlxk-health";

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
        let bar = ProgressBar::no_length().with_style(style());
        let progress = |Progress { done, total }| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            match watch.caught() {
                true => Err(Error::new(Kind::Execution, "", "interrupted")),
                false => Ok(()),
            }
        };
        let places = mlxk_cli::places()?;
        let made = mlxk_gguf::convert(&self.source, &self.target, self.dtype, &places, progress);
        bar.finish_and_clear();
        if made.is_err() {
            drop(watch); // dies of the signal, rather than tell of it
        }
        let record = made?;
        match out.form {
            Form::Human => out.text(&summary(&record)),
            Form::Ndjson => out.lines([&record]),
            Form::Json => out.envelope(record),
        }
    }
}

/// Drawn on stderr, and only if that is a terminal.
fn style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} tensors, {eta}");
    style.unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn summary(record: &Record) -> String {
    let text = |key| record.str(key).unwrap_or_default();
    let number = |key| record.get(key).and_then(|value| value.as_u64()).unwrap_or_default();
    format!(
        "convert: {} → {} ({}, {} tensors, {})\n",
        text("source"),
        text("target"),
        text("health_status"),
        number("tensors"),
        human::size(number("size_bytes")),
    )
}

fn main() -> ExitCode {
    mlxk_cli::main::<Convert>()
}
