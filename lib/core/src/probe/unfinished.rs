//! Incomplete downloads of a cached model.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::store::{Found, Origin};

/// The incomplete blobs of a cached model, sorted and relative to its directory.
///
/// A blob that a later download completed does not count. If a newer snapshot exists the list is
/// empty, since the download probably belongs to that one.
pub fn list(found: &Found) -> io::Result<Vec<PathBuf>> {
    let Origin::Cache { repo } = &found.origin else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(repo.join("blobs")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut unfinished = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(etag) = name.strip_suffix(".incomplete") else {
            continue;
        };
        // `ETAG.incomplete`, or `ETAG.RANDOM.incomplete` since huggingface_hub 1.18.
        let etag = etag.split_once('.').map_or(etag, |(etag, _)| etag);
        let whole = repo.join("blobs").join(etag).exists();
        if !whole {
            unfinished.push(Path::new("blobs").join(name));
        }
    }
    unfinished.sort();
    let ours = unfinished.is_empty() || found.revision.is_none() || is_newest(&found.path)?;
    Ok(if ours { unfinished } else { Vec::new() })
}

/// True if no sibling of `snapshot` changed after it.
fn is_newest(snapshot: &Path) -> io::Result<bool> {
    let changed = fs::metadata(snapshot)?.modified()?;
    let Some(parent) = snapshot.parent() else {
        return Ok(true);
    };
    for sibling in fs::read_dir(parent)? {
        // One that was removed meanwhile is no newer.
        let sibling = sibling?.metadata().and_then(|data| data.modified());
        if sibling.is_ok_and(|sibling| sibling > changed) {
            return Ok(false);
        }
    }
    Ok(true)
}
