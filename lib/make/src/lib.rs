//! Makes a workspace out of a model in another form, and tells how it goes.
//!
//! Only programs use this crate: it prints, as mlxk-cli does.

mod teller;

use std::path::{Path, PathBuf};

use mlxk_cli::{Form, Output, convert::tell, interrupt};
use mlxk_core::reindex::repair_index;
use mlxk_core::store::room;
use mlxk_core::store::staging::Staging;
use mlxk_core::tensors::Entry;
use mlxk_core::verify::Progress;
use mlxk_core::{Error, Float, Kind, Places, Record, Result};
use mlxk_gguf::{Examine, ImportOptions, Quantized};
use mlxk_infer::convert::{self, Change, Quantize, Recipe, examine, merge};

use teller::Teller;

/// What shall be made, and of what.
#[derive(Debug)]
pub struct Order {
    /// A GGUF file, or a workspace.
    pub source: PathBuf,
    /// The directory to make.
    pub target: PathBuf,
    /// What becomes of the weights.
    pub change: Wish,
    /// An adapter that is brought into them.
    pub adapter: Option<PathBuf>,
    /// The type of plain weights, if not the one that they have.
    pub dtype: Option<Float>,
    /// Whether what comes of it must be healthy.
    pub check: bool,
    /// Whether records tell how it goes.
    pub events: bool,
}

/// What becomes of weights.
#[derive(Debug)]
pub enum Wish {
    /// They stay as they are, as far as their new form has them so.
    Keep,
    /// They are packed.
    Quantize(Quantize),
    /// They are unpacked.
    Dequantize,
    /// They stay, and their index is made anew.
    RepairIndex,
}

/// Makes a workspace and tells of it.
///
/// # Errors
/// If the source is not what can be made into it, the target not where it may be made, the disk full;
/// then nothing is left behind.
pub fn make(order: &Order, places: &Places, out: &mut Output) -> Result<()> {
    let watch = interrupt::watch();
    let source = order.source.display().to_string();
    let mut teller = Teller::new(&source, order.events.then_some(&mut *out));
    let made = made(order, places, |progress| {
        teller.heed(progress)?;
        watch.check()
    });
    drop(teller);
    if made.is_err() {
        drop(watch); // dies of the signal, rather than tell of it
    }
    let made = made?;
    match out.form {
        Form::Ndjson if order.events => out.lines([&made.with("type", "end")]),
        _ => tell(made, out),
    }
}

fn made(
    order: &Order,
    places: &Places,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let Order { source, target, dtype, check, .. } = order;
    let adapter = order.adapter.as_deref();
    let change = match &order.change {
        Wish::RepairIndex => return repair_index(source, target, *check, places, progress),
        Wish::Quantize(quantize) => Some(Change::Quantize(*quantize)),
        Wish::Dequantize => Some(Change::Dequantize),
        Wish::Keep if dtype.is_some() || adapter.is_some() => Some(Change::None),
        Wish::Keep => None,
    };
    let packs = matches!(change, Some(Change::Quantize(_)));
    let recipe = change.map(|change| Recipe { dtype: *dtype, change, ..Recipe::default() });
    match recipe {
        Some(recipe) if source.is_file() && packs => packed(order, &recipe, places, progress),
        Some(recipe) if !source.is_file() => {
            merge(source, target, adapter, &recipe, *check, places, progress)
        }
        None if source.is_dir() => {
            Err(refused(source, "a workspace is there already: say what shall become of it")
                .hint("--quantize, --dequantize, --dtype or --repair-index"))
        }
        Some(_) if adapter.is_some() => {
            Err(refused(source, "an adapter goes into a workspace, or into what is packed anew")
                .hint("--quantize, or import the file first"))
        }
        _ => {
            let open = matches!(order.change, Wish::Dequantize);
            let quantized = if open { Quantized::Dequantize } else { Quantized::Keep };
            let options = ImportOptions { dtype: *dtype, quantized, check: *check };
            mlxk_gguf::convert(source, target, options, places, &examine, progress)
        }
    }
}

/// A GGUF file's weights packed anew: by way of plain ones, which are thrown away.
fn packed(
    order: &Order,
    recipe: &Recipe,
    places: &Places,
    mut progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let Order { source, target, adapter, dtype, check, .. } = order;
    let aside = Staging::new(target, places)?;
    let room: Examine = &|config, plain| {
        let bytes: u64 = plain.iter().filter_map(Entry::bytes).sum();
        room::check(aside.path(), bytes + convert::bytes(config, plain, recipe)?)
    };
    let from =
        mlxk_gguf::convert_dequantized(source, aside.path(), *dtype, places, room, &mut progress)?;
    let adapter = adapter.as_deref();
    let made = merge(aside.path(), target, adapter, recipe, *check, places, progress)?;
    Ok(made.with("source", from))
}

fn refused(path: &Path, what: &str) -> Error {
    Error::new(Kind::Validation, path.display().to_string(), what)
}
