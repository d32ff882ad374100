//! Rebuilds the index of a sharded model from the headers of its files.

use std::collections::BTreeMap;
use std::path::Path;

use super::Header;
use super::writer;
use crate::error::{Error, Kind, Result};
use crate::probe::is_litter;
use crate::regular_file;
use crate::store::directory::entries;

/// Writes the index of the safetensors files directly in `dir` and returns their count. A single file
/// gets no index.
///
/// # Errors
/// If a header is invalid, or two files have a tensor of the same name.
pub fn rebuild_index(dir: &Path) -> Result<usize> {
    let names = entries(dir)?.into_iter().map(|(name, _)| name);
    let is_shard = |name: &String| name.ends_with(".safetensors") && !is_litter(name.as_ref());
    let mut shards: Vec<_> = names.filter(is_shard).collect();
    shards.sort();
    if shards.len() < 2 {
        return Ok(shards.len());
    }
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    let mut total = 0;
    for shard in &shards {
        let path = dir.join(shard);
        let header = header(&path)?;
        for tensor in header.tensors {
            total += tensor.range.end - tensor.range.start;
            if let Some(other) = map.insert(tensor.name.clone(), shard.clone()) {
                let message = format!("the tensor {:?} is in {other} too", tensor.name);
                return Err(invalid(&path, message));
            }
        }
    }
    writer::index(dir, map.into_iter(), total)?;
    Ok(shards.len())
}

fn header(path: &Path) -> Result<Header> {
    let at = |e| Error::io(path, e);
    let mut file = regular_file::open(path).map_err(at)?;
    let size = file.metadata().map_err(at)?.len();
    Header::read(&mut file, size).map_err(|what| invalid(path, what))
}

fn invalid(path: &Path, what: String) -> Error {
    Error::at(Kind::InvalidModel, path, what)
}
