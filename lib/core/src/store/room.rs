//! Whether the disk has room for what shall be written: asked before the first byte is.

use std::path::Path;

use rustix::fs::statvfs;

use crate::error::{Error, Kind, Result};

/// For config.json, the tokenizer and the index.
const BESIDES: u64 = 32 << 20;

/// Errors if there is no room for `bytes` of tensors in `directory`.
pub fn check(directory: &Path, bytes: u64) -> Result<()> {
    let disk = statvfs(directory).map_err(|e| Error::io(directory, e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes.saturating_add(BESIDES) <= free {
        return Ok(());
    }
    let message = format!("the disk has no room: {bytes} bytes are to come, {free} are free");
    Err(Error::new(Kind::Execution, directory.display().to_string(), message)
        .hint("mlxk-rm --prune frees what nothing uses"))
}
