//! mlxk-convert: converts a model to an MLX workspace.

#[path = "convert/convert.rs"]
mod convert;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use mlxk_cli::{Form, FormFlags, Output, Tool};
use mlxk_core::quantization::Mode;
use mlxk_core::{Error, Float, Result};
use mlxk_models::convert::{Bits, Quantize};
use serde_json::{Value, json};

use convert::{Options, Weights};

/// Convert a model to an MLX workspace, or change its precision
///
/// A GGUF file is imported: Q4_0, Q4_1, Q8_0 and MXFP4 are repacked without loss and unquantized
/// matrices kept; other types, such as K-quants, are dequantized, or requantized with --quantize. A
/// workspace is copied with its weights quantized, dequantized, converted to another type, or merged
/// with an adapter. The source is not changed.
#[derive(Parser)]
#[command(name = "mlxk-convert", version, after_help = EXAMPLES)]
struct Convert {
    /// A GGUF file, or a workspace
    #[arg(value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    source: PathBuf,
    /// The directory to create; a bare name is in MLXK_WORKSPACE_HOME if that is set
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    target: PathBuf,
    /// Quantize the weights: 2, 3, 4, 5, 6 or 8 bits each, or mixed_2_6, mixed_3_4,
    /// mixed_3_6, mixed_4_6
    #[arg(long, value_name = "BITS", visible_alias = "q-bits", group = "change")]
    quantize: Option<Bits>,
    /// Weights per group, which share a scale; default: 64, or the fixed size of the mode
    #[arg(long, value_name = "N", requires = "quantize")]
    q_group_size: Option<usize>,
    /// Quantization mode
    #[arg(long, value_name = "MODE", requires = "quantize", default_value = "affine", value_parser = modes())]
    q_mode: Mode,
    /// Dequantize the weights
    #[arg(long, group = "change")]
    dequantize: bool,
    /// Merge an adapter into the weights, as mlx-lm's fuse does
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath, conflicts_with = "repair_index")]
    merge_adapter: Option<PathBuf>,
    /// Copy a workspace and rebuild its weight index
    #[arg(long, group = "change")]
    repair_index: bool,
    /// Type of unquantized weights; default: that of config.json, or of the GGUF file's matrices
    #[arg(long, value_name = "TYPE", value_parser = dtypes(), conflicts_with = "repair_index")]
    dtype: Option<Float>,
    /// Create the workspace even if it is not healthy
    #[arg(long)]
    skip_health: bool,
    #[command(flatten)]
    output: FormFlags,
}

const EXAMPLES: &str = "\
Examples:
  mlxk-convert SmolLM2-135M-Instruct.Q4_1.gguf ./SmolLM2
  mlxk-convert ./Qwen3-0.6B ./Qwen3-0.6B-4bit --quantize 4
  mlxk-convert --repair-index ./broken ./whole | mlxk-health";

fn dtypes() -> impl TypedValueParser<Value = Float> {
    let value = |name: &'static str| {
        // The other name is that of mlx-lm and PyTorch.
        PossibleValue::new(name).aliases(name.parse().ok().map(Float::torch))
    };
    let values: Vec<PossibleValue> = Float::NAMES.into_iter().map(value).collect();
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Float>())
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    let unknown = "no such mode"; // the list of possible values stands before it
    PossibleValuesParser::new(Mode::ALL.map(Mode::name))
        .try_map(move |name| Mode::find(&name).ok_or(unknown))
}

impl Tool for Convert {
    const COMMAND: &'static str = "convert";

    fn form(&self) -> Form {
        self.output.form()
    }

    fn data(&self, _: &Error) -> Value {
        let mode = match (self.repair_index, self.dequantize, self.quantize.is_some()) {
            (true, ..) => "repair-index",
            (_, true, _) => "dequantize",
            (_, _, true) => "quantize",
            _ => "import",
        };
        json!({
            "source": self.source.to_string_lossy(),
            "target": self.target.to_string_lossy(),
            "mode": mode,
            "health_check": !self.skip_health,
        })
    }

    fn run(&self, out: &mut Output) -> Result<()> {
        let weights = match self.quantize {
            Some(bits) => Weights::Quantize(Quantize::new(self.q_mode, bits, self.q_group_size)?),
            None if self.dequantize => Weights::Dequantize,
            None if self.repair_index => Weights::RepairIndex,
            None => Weights::Keep,
        };
        let options = Options {
            source: self.source.clone(),
            target: self.target.clone(),
            weights,
            adapter: self.merge_adapter.clone(),
            dtype: self.dtype,
            check: !self.skip_health,
            events: self.output.ndjson(),
        };
        convert::convert(&options, &mlxk_cli::places()?, out)
    }
}

fn main() -> ExitCode {
    mlxk_cli::main::<Convert>()
}
