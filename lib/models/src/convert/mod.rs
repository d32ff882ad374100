//! Conversion of a model to another precision or quantisation, in a workspace of its own.
//!
//! Data flows one way: `recipe` (quantisation of each matrix), `tensors` (bytes of each tensor),
//! writer. Loading the architecture says which tensors are matrices.

mod examine;
mod merge;
mod recipe;
mod small_floats;
mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mlxk_core::quantization::QuantSpec;
use mlxk_core::tensors::{Entry, INDEX};
use mlxk_core::workspace::remake::Remake;
use mlxk_core::workspace::stamp::Stamp;
use mlxk_core::{Error, Facts, Float, Inspected, Kind, Places, Progress, Record, Result, inspect};
use serde_json::Value;

pub use examine::examine;
pub use merge::merge as fuse;
pub use recipe::{Bits, Change, Quantize, Recipe};

use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::formats::Checkpoint;
use crate::checkpoint::tensor::Tensor;
use crate::checkpoint::weights::Inventory;
use crate::registry;
use crate::sketch;
use crate::sketch::Parts;
use mlxk_tensor::floats;
use tensors::{QuantizedTensors, Tensors};

/// Converts the workspace `source` to the workspace `target` by `recipe`.
///
/// Places are as in [`Remake::begin`], `check` as in [`Remake::finish`]. `progress` counts the
/// bytes written; its error cancels the conversion.
///
/// # Errors
/// As those functions; if the model cannot run, is quantised already (or not, to dequantise),
/// changes while it is read, or the disk is full. Nothing is left behind then.
pub fn convert(
    source: &Path,
    target: &Path,
    recipe: &Recipe,
    check: bool,
    places: &Places,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    merge(source, target, None, recipe, check, places, progress)
}

/// Converts as [`convert`] does, and merges the adapter in a folder into the weights first, as
/// mlx-lm's `fuse` does: quantised matrices are quantised again in the same form, unless the recipe
/// dequantises.
///
/// # Errors
/// As [`convert`], and if the adapter cannot be read or is for another model.
pub fn merge(
    source: &Path,
    target: &Path,
    adapter: Option<&Path>,
    recipe: &Recipe,
    check: bool,
    places: &Places,
    mut progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let mode = if adapter.is_some() { "merge" } else { recipe.mode() };
    let mut remake = Remake::begin(source, target, mode, places)?;
    let stamps = Stamp::of_model(&remake.source().path)?;
    let Inspected { facts, plan, .. } = inspect(remake.source())?;
    let mut parts = sketch::parts(&facts, &plan)?;
    possible(&parts.taken, &facts, recipe)?;
    let merged = match adapter {
        Some(adapter) => Some(fuse(&mut parts, Adapter::read(adapter)?)?),
        None => None,
    };
    let config = parts.checkpoint.config.clone();
    let mut tensors = choose(parts, &facts.found.path, recipe, merged)?;
    let entries = std::mem::take(&mut tensors.entries);
    let bytes: u64 = entries.iter().filter_map(Entry::bytes).sum();
    let items = remake.items(&|path| !is_replaced(path, &facts))?;
    remake.check_room(&items, bytes)?;
    remake.copy(&items, &mut progress)?;
    if let Change::Quantize(quantize) = &recipe.change {
        remake.note("quantization", quantize.asked());
    }
    write_config(&remake.path().join(CONFIG), config, &tensors, recipe)?;
    progress(Progress::Due(bytes))?;
    mlxk_core::tensors::stream(remake.path(), &entries, recipe.shard, |entry, out| {
        tensors.write(entry, &mut |bytes| {
            out(bytes)?;
            progress(Progress::Read(bytes.len() as u64))?;
            // Checked before the next read, which would kill the process if the file was truncated.
            stamps.iter().try_for_each(Stamp::check)
        })
    })?;
    Ok(remake.finish(check)?.with("tensors", entries.len()).with("size_bytes", bytes))
}

/// Bytes of the tensors that [`convert`] would write for a model of `config` and `entries`.
///
/// # Errors
/// As [`examine`].
pub fn bytes(config: &Value, entries: &[Entry], recipe: &Recipe) -> Result<u64> {
    let parts = examine::sketched(config, entries)?;
    let tensors = choose(parts, Path::new(CONFIG), recipe, None)?;
    Ok(tensors.entries.iter().filter_map(Entry::bytes).sum())
}

const CONFIG: &str = "config.json";

/// Chooses the work for each tensor. `merged` is the former quantisation of the matrices that an
/// adapter was merged into; after a merge, floats keep their type unless the recipe requests one.
fn choose(
    parts: Parts,
    source: &Path,
    recipe: &Recipe,
    merged: Option<BTreeMap<String, QuantSpec>>,
) -> Result<Tensors> {
    let Parts { architecture, checkpoint, taken } = parts;
    let Checkpoint { config, mut tensors } = checkpoint;
    tensors.retain(|name, _| !taken.discarded.contains(name));
    let mut matrices = taken.matrices;
    let rules = &registry::spec(architecture).convert;
    let listed = |ends: &[&str], name: &str| ends.iter().any(|end| name.ends_with(end));
    if rules.untie {
        untie(&mut tensors, &mut matrices);
    }
    let float = recipe.dtype.or_else(|| float_of(&config).filter(|_| merged.is_none()));
    let mut chosen = Tensors::new();
    match &recipe.change {
        Change::None => {
            for (name, form) in merged.into_iter().flatten() {
                if let Some(weights) = tensors.remove(&format!("{name}.weight")) {
                    chosen.packed(&name, weights, recipe.dtype, form);
                }
            }
        }
        Change::Quantize(quantize) => {
            let forms = quantize.decide(rules, matrices.keys());
            for name in matrices.keys() {
                let form = forms(name);
                let fits = |tensor: &Tensor| {
                    let ins = tensor.shape.last().copied().unwrap_or_default();
                    let whole = |form: QuantSpec| ins.is_multiple_of(form.group_size);
                    whole(form) && whole(quantize.form()) && floats::kind(tensor.dtype).is_some()
                };
                if listed(rules.plain, name) {
                    continue;
                }
                let weight = format!("{name}.weight");
                if tensors.get(&weight).is_some_and(fits)
                    && let Some(weights) = tensors.remove(&weight)
                {
                    chosen.packed(name, weights, float, form);
                }
            }
        }
        Change::Dequantize => {
            for (name, form) in &matrices {
                let Some(form) = *form else { continue };
                let mut take = |part| tensors.remove(&format!("{name}.{part}"));
                let (Some(weight), Some(scales)) = (take("weight"), take("scales")) else {
                    let what = format!("has `{name}` in a form of its own: it stays packed");
                    return Err(refused(source, &what));
                };
                let packed = QuantizedTensors { weight, scales, biases: take("biases"), form };
                chosen.unpacked(name, packed, float);
            }
        }
    }
    for (name, tensor) in tensors {
        let kept = taken.left.contains(&name) || listed(rules.keep, &name);
        let float = float.filter(|_| !kept);
        chosen.plain(&name, tensor, float)?;
    }
    chosen.entries.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)));
    Ok(chosen)
}

/// Adds a separate head to a model with tied embeddings.
fn untie(
    tensors: &mut BTreeMap<String, Tensor>,
    matrices: &mut BTreeMap<String, Option<QuantSpec>>,
) {
    let Some(embeddings) = tensors.get("model.embed_tokens.weight") else { return };
    if !tensors.contains_key("lm_head.weight") && floats::kind(embeddings.dtype).is_some() {
        tensors.insert("lm_head.weight".to_owned(), embeddings.clone());
        matrices.insert("lm_head".to_owned(), None);
    }
}

/// Errors if the recipe does not apply to the matrices of the source.
fn possible(taken: &Inventory, facts: &Facts, recipe: &Recipe) -> Result<()> {
    let quantised = taken.matrices.values().any(Option::is_some);
    match recipe.change {
        Change::Quantize(_) if quantised => Err(refused(&facts.found.path, "is quantised already")
            .hint("quantise the original, or make it plain first: --dequantize")),
        Change::Dequantize if !quantised => Err(refused(&facts.found.path, "is not quantised")),
        _ => Ok(()),
    }
}

/// Sort key of a name: numbers in it compare as numbers, and codes come before their scales.
fn natural(name: &str) -> (Vec<(usize, &str)>, bool, &str) {
    let (stem, part) = name.rsplit_once('.').unwrap_or(("", name));
    let number = |part: &str| part.parse().unwrap_or(usize::MAX);
    (stem.split('.').map(|part| (number(part), part)).collect(), part != "weight", part)
}

/// Float type that config.json names.
fn float_of(config: &Value) -> Option<Float> {
    let text = config.get("text_config");
    let named = config.get("torch_dtype").or_else(|| config.get("dtype"));
    let named =
        named.or_else(|| text.and_then(|text| text.get("torch_dtype").or(text.get("dtype"))));
    named?.as_str()?.parse().ok()
}

/// True if a file of the source is not copied: weights, and files that are written anew. The
/// weights of a folder with a config.json of its own, such as a dense layer after an encoder, are
/// not the model's.
fn is_replaced(path: &Path, facts: &Facts) -> bool {
    let new = [CONFIG, INDEX].map(Path::new).contains(&path);
    let own = facts.weights().iter().any(|shard| shard.path == path);
    let module = path
        .parent()
        .is_some_and(|folder| folder != Path::new("") && facts.file(folder.join(CONFIG)).is_some());
    let weights = facts.shards.iter().any(|shard| shard.path == path);
    new || own || weights && !module
}

fn write_config(path: &Path, mut config: Value, tensors: &Tensors, recipe: &Recipe) -> Result<()> {
    if let Some(fields) = config.as_object_mut() {
        if !matches!(recipe.change, Change::None) {
            fields.remove("quantization");
            fields.remove("quantization_config");
        }
        if let Change::Quantize(quantize) = &recipe.change {
            let table = tensors.table(quantize.form());
            fields.insert("quantization".into(), table.clone());
            fields.insert("quantization_config".into(), table);
        }
        if let Some(float) = recipe.dtype {
            let key = if fields.contains_key("dtype") { "dtype" } else { "torch_dtype" };
            fields.insert(key.into(), float.torch().into());
        }
    }
    fs::write(path, format!("{config:#}\n")).map_err(|e| Error::io(path, e))
}

fn refused(path: &Path, message: &str) -> Error {
    Error::new(Kind::InvalidModel, path.display().to_string(), message)
}
