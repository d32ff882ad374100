//! Writes weights as safetensors files and their index, with one tensor in memory at a time.

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::header::size;
use super::index::INDEX;
use crate::error::{Error, Result};
use crate::store::atomic_write::atomic_write;

/// The maximum size of a shard in bytes; MLX's tools have the same limit.
pub const SHARD: u64 = 5 << 30;

/// A tensor to write.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name of the tensor, unique in the model.
    pub name: String,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The dimensions of the tensor.
    pub shape: Vec<usize>,
}

impl Entry {
    /// The size of the tensor in bytes; none if it overflows or is not a whole number.
    pub fn bytes(&self) -> Option<u64> {
        size(self.dtype, &self.shape)
    }
}

/// Writes `entries` into the directory `dir` as `model.safetensors`, or as shards of at most `shard`
/// bytes, and then their index. A tensor larger than `shard` gets a file of its own.
///
/// `bytes` is called once for each tensor and returns its data, little-endian and of the size of the
/// entry. Files appear under their names only when they are complete.
///
/// # Errors
/// If two tensors have the same name, a size is impossible, the data has another size, `bytes`
/// fails, or the disk fails.
pub fn write<'a>(
    dir: &Path,
    entries: &[Entry],
    shard: u64,
    mut bytes: impl FnMut(&Entry) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    stream(dir, entries, shard, |entry, out| out(&bytes(entry)?))
}

/// Writes `entries` as [`write()`] does; `fill` passes the data of each tensor in pieces of any size.
///
/// # Errors
/// See [`write()`].
pub fn stream(
    dir: &Path,
    entries: &[Entry],
    shard: u64,
    mut fill: impl FnMut(&Entry, &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let shards = plan(entries, shard)?;
    let mut weight_map: Vec<(&str, String)> = Vec::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = match shards.len() {
            1 => "model.safetensors".to_owned(),
            total => format!("model-{:05}-of-{total:05}.safetensors", number + 1),
        };
        weight_map.extend(shard.iter().map(|(entry, _)| (entry.name.as_str(), file.clone())));
        create(&dir.join(&file), |out| {
            out.write_all(&header(shard)).map_err(|e| Error::io(dir, e))?;
            shard.iter().try_for_each(|(entry, size)| {
                let mut written = 0;
                fill(entry, &mut |bytes| {
                    written += bytes.len() as u64;
                    out.write_all(bytes).map_err(|e| Error::io(dir, e))
                })?;
                check(entry, *size, written)
            })
        })?;
    }
    weight_map.sort();
    let total: u64 = shards.iter().flatten().map(|(_, size)| size).sum();
    index(dir, weight_map.into_iter().map(|(name, file)| (name.to_owned(), file)), total)
}

/// The tensors of a shard, each with its size in bytes.
type Shard<'a> = Vec<(&'a Entry, u64)>;

/// Distributes the tensors over shards in order. Within a shard tensors of wide elements come first,
/// so that each tensor is aligned to its elements.
fn plan(entries: &[Entry], limit: u64) -> Result<Vec<Shard<'_>>> {
    let mut names: Vec<_> = entries.iter().map(|entry| &entry.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid_model(pair[0], "a tensor of this name is there twice"));
    }
    let mut shards: Vec<Shard> = vec![Vec::new()];
    let mut filled = 0u64;
    for entry in entries {
        let size = size(entry.dtype, &entry.shape).ok_or_else(|| {
            let what = format!("impossible size: {} {:?}", entry.dtype, entry.shape);
            Error::invalid_model(&entry.name, what)
        })?;
        if filled > 0 && filled.saturating_add(size) > limit {
            shards.push(Vec::new());
            filled = 0;
        }
        filled = filled.saturating_add(size);
        if let Some(last) = shards.last_mut() {
            last.push((entry, size));
        }
    }
    for shard in &mut shards {
        shard.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.dtype.bitsize()));
    }
    Ok(shards)
}

/// The length and the JSON of a header, padded so that the data begins at a multiple of 8 bytes.
fn header(shard: &Shard) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("__metadata__".to_owned(), json!({ "format": "mlx" }));
    let mut at = 0;
    for (Entry { name, dtype, shape }, size) in shard {
        let place =
            json!({ "dtype": dtype.to_string(), "shape": shape, "data_offsets": [at, at + size] });
        fields.insert(name.clone(), place);
        at += size;
    }
    let mut text = Value::Object(fields).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

fn check(entry: &Entry, size: u64, written: u64) -> Result<()> {
    if written == size {
        return Ok(());
    }
    let Entry { name, dtype, shape } = entry;
    let what = format!("{dtype} {shape:?} needs {size} bytes, not {written}");
    Err(Error::invalid_model(name, what))
}

/// Writes the index for pairs of tensor and file; `total` is the size of all tensors in bytes.
pub(super) fn index(
    dir: &Path,
    weight_map: impl Iterator<Item = (String, String)>,
    total: u64,
) -> Result<()> {
    let map: Map<_, _> = weight_map.map(|(name, file)| (name, file.into())).collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    create(&dir.join(INDEX), |out| writeln!(out, "{index:#}").map_err(|e| Error::io(dir, e)))
}

/// Writes a file atomically through a buffer.
fn create(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    atomic_write(path, path.parent().unwrap_or(Path::new(".")), |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        fill(&mut out)?;
        out.flush().map_err(|e| Error::io(path, e))
    })
}
