//! Conversion of a GGUF file or a workspace into a new workspace, and its record and text output.

use std::path::{Path, PathBuf};

use mlxk_cli::{Form, Output, Reporter, human, interrupt};
use mlxk_core::store::disk_space;
use mlxk_core::tensors::Entry;
use mlxk_core::workspace::reindex::repair_index;
use mlxk_core::workspace::staging::Staging;
use mlxk_core::{Error, Float, Kind, Places, Progress, Record, Result};
use mlxk_gguf::{Examine, ImportOptions, Quantized};
use mlxk_models::convert;
use mlxk_models::convert::{Change, Quantize, Recipe, examine, merge};
use serde_json::Value;

/// Options of a conversion.
#[derive(Debug)]
pub struct Options {
    /// GGUF file or workspace to convert.
    pub source: PathBuf,
    /// Directory to create.
    pub target: PathBuf,
    /// Change of the weights.
    pub weights: Weights,
    /// Folder of an adapter that is merged into the weights.
    pub adapter: Option<PathBuf>,
    /// Data type of unquantized weights; unchanged if absent.
    pub dtype: Option<Float>,
    /// True if the workspace must be healthy.
    pub check: bool,
    /// True if progress records are written.
    pub events: bool,
}

/// Change of the weights.
#[derive(Debug)]
pub enum Weights {
    /// Weights are unchanged, as far as the new format can represent them.
    Keep,
    /// Weights are quantized.
    Quantize(Quantize),
    /// Weights are dequantized.
    Dequantize,
    /// Weights are unchanged, and their index is rebuilt.
    RepairIndex,
}

/// Makes a workspace, and writes its record.
///
/// # Errors
/// If the source cannot be converted, the target cannot be created there, or the disk is full. No
/// files are left behind.
pub fn convert(options: &Options, places: &Places, out: &mut Output) -> Result<()> {
    let watch = interrupt::watch();
    let source = options.source.display().to_string();
    let reporter = Reporter::new(&source, options.events, out);
    let made = make(options, places, |progress| {
        reporter.report(progress);
        reporter.check()?;
        watch.check()
    });
    drop(reporter);
    if made.is_err() {
        drop(watch); // dies of the signal, rather than tell of it
    }
    let made = made?;
    match out.form {
        Form::Human => out.prose(&summary(&made)),
        Form::Ndjson if options.events => out.lines([&made.with("type", "end")]),
        Form::Ndjson => out.lines([&made]),
        Form::Json => out.envelope(made),
    }
}

fn make(
    options: &Options,
    places: &Places,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let Options { source, target, dtype, check, .. } = options;
    let adapter = options.adapter.as_deref();
    let change = match &options.weights {
        Weights::RepairIndex if source.is_file() => {
            return Err(refused(source, "a file, and --repair-index takes a workspace"));
        }
        Weights::RepairIndex => return repair_index(source, target, *check, places, progress),
        Weights::Quantize(quantize) => Some(Change::Quantize(*quantize)),
        Weights::Dequantize => Some(Change::Dequantize),
        Weights::Keep if dtype.is_some() || adapter.is_some() => Some(Change::None),
        Weights::Keep => None,
    };
    let packs = matches!(change, Some(Change::Quantize(_)));
    let recipe = change.map(|change| Recipe { dtype: *dtype, change, ..Recipe::default() });
    match recipe {
        Some(recipe) if source.is_file() && packs => requantize(options, &recipe, places, progress),
        Some(recipe) if !source.is_file() => {
            merge(source, target, adapter, &recipe, *check, places, progress)
        }
        None if source.is_dir() => {
            Err(refused(source, "the source is a workspace already, and no conversion is selected")
                .hint("--quantize, --dequantize, --dtype or --repair-index"))
        }
        Some(_) if adapter.is_some() => Err(refused(
            source,
            "an adapter can be merged into a workspace or a quantized import only",
        )
        .hint("--quantize, or import the file first")),
        _ => {
            let open = matches!(options.weights, Weights::Dequantize);
            let quantized = if open { Quantized::Dequantize } else { Quantized::Keep };
            let options = ImportOptions { dtype: *dtype, quantized, check: *check };
            mlxk_gguf::convert(source, target, options, places, &examine, progress)
        }
    }
}

/// Requantizes the weights of a GGUF file, by way of a temporary dequantized workspace.
fn requantize(
    options: &Options,
    recipe: &Recipe,
    places: &Places,
    mut progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let Options { source, target, adapter, dtype, check, .. } = options;
    let aside = Staging::new(target, places)?;
    let room: Examine = &|config, plain| {
        let bytes: u64 = plain.iter().filter_map(Entry::bytes).sum();
        disk_space::check(aside.path(), bytes + convert::bytes(config, plain, recipe)?)
    };
    let from =
        mlxk_gguf::convert_dequantized(source, aside.path(), *dtype, places, room, &mut progress)?;
    let adapter = adapter.as_deref();
    let made = merge(aside.path(), target, adapter, recipe, *check, places, progress)?;
    Ok(made.with("source", from))
}

fn refused(path: &Path, what: &str) -> Error {
    Error::new(Kind::Command, path.display().to_string(), what)
}

/// The record of a conversion in one line of text.
fn summary(record: &Record) -> String {
    let text = |key| record.str(key);
    let number = |key| record.get(key).and_then(Value::as_u64);
    let parts = [
        text("message").map(str::to_owned),
        text("health_status").map(str::to_owned),
        number("tensors").map(|count| human::count(count as usize, "tensor")),
        number("size_bytes").map(human::size),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let names = ["source", "target"].map(|key| text(key).unwrap_or_default());
    format!("convert: {} → {} ({})\n", names[0], names[1], parts.join(", "))
}
