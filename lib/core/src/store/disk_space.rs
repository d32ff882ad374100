//! Whether the disk has room for what shall be written: asked before the first byte is.

use std::path::Path;

use rustix::fs::statvfs;

use crate::error::{Error, Kind, Result};

/// Left to others, and to config.json, the tokenizer and the index.
const BESIDES: u64 = 32 << 20;

/// Errors if there is no room for `bytes` more below `directory`, which need not exist yet.
pub fn check(directory: &Path, bytes: u64) -> Result<()> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(there).map_err(|e| Error::io(there, e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes == 0 || bytes.saturating_add(BESIDES) <= free {
        return Ok(());
    }
    let message = format!("the disk has no room: {bytes} bytes are to come, {free} are free");
    Err(Error::new(Kind::Execution, directory.display().to_string(), message)
        .hint("mlxk-rm --prune frees what nothing uses"))
}
