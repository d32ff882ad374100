//! Writing a model's weights: one file, or shards, and the index, one tensor in memory at a time.

use std::borrow::Cow;
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::header::size;
use super::index::INDEX;
use crate::error::{Error, Kind, Result};
use crate::store::atomic_write::atomic_write;

/// The size above which MLX's own tools begin another file, in bytes.
pub const SHARD: u64 = 5 << 30;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name, unique in the model.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl Entry {
    /// Its size in bytes; none if it is impossible.
    pub fn bytes(&self) -> Option<u64> {
        size(self.dtype, &self.shape)
    }
}

/// Writes `entries` into the directory `dir`, as `model.safetensors` or as shards of at most
/// `shard` bytes of tensors (a larger tensor has one of its own), and their index, which comes last.
///
/// `bytes` is asked for each tensor once, little-endian and of exactly the size that its shape says.
/// A file gets its name only when it is complete.
///
/// # Errors
/// If a tensor is named twice, has no whole number of bytes, or not the bytes that it should; if
/// `bytes` fails; if the disk does.
pub fn write<'a>(
    dir: &Path,
    entries: &[Entry],
    shard: u64,
    mut bytes: impl FnMut(&Entry) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    stream(dir, entries, shard, |entry, out| out(&bytes(entry)?))
}

/// Writes `entries` as [`write`] does; `fill` gives the bytes of each in as many pieces as it likes.
///
/// # Errors
/// As [`write`].
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

/// A shard: its tensors, each with its size in bytes.
type Shard<'a> = Vec<(&'a Entry, u64)>;

/// Spreads the tensors over shards, in their order; within a shard wide elements come first, so
/// that every tensor lies at a multiple of the size of its elements.
fn plan(entries: &[Entry], limit: u64) -> Result<Vec<Shard<'_>>> {
    let mut names: Vec<_> = entries.iter().map(|entry| &entry.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::new(
            Kind::InvalidModel,
            pair[0],
            "a tensor of this name is there twice",
        ));
    }
    let mut shards: Vec<Shard> = vec![Vec::new()];
    let mut filled = 0u64;
    for entry in entries {
        let size = size(entry.dtype, &entry.shape).ok_or_else(|| {
            let what = format!("impossible size: {} {:?}", entry.dtype, entry.shape);
            Error::new(Kind::InvalidModel, &entry.name, what)
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

/// The eight bytes of length and the header, padded so that the tensors begin at a multiple of 8.
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
    Err(Error::new(Kind::InvalidModel, name, what))
}

/// Writes the index of tensors, each with its file, in their order; `total` counts their bytes.
pub(super) fn index(
    dir: &Path,
    weight_map: impl Iterator<Item = (String, String)>,
    total: u64,
) -> Result<()> {
    let map: Map<_, _> = weight_map.map(|(name, file)| (name, file.into())).collect();
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    create(&dir.join(INDEX), |out| writeln!(out, "{index:#}").map_err(|e| Error::io(dir, e)))
}

/// Writes a file under another name and gives it its own at the end.
fn create(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    atomic_write(path, path.parent().unwrap_or(Path::new(".")), |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        fill(&mut out)?;
        out.flush().map_err(|e| Error::io(path, e))
    })
}
