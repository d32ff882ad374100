//! Whether the disk has room for what shall come: asked before the first byte does.

use std::path::Path;

use mlxk_core::{Error, Kind, Result};
use rustix::fs::statvfs;

/// Left to others.
const RESERVE: u64 = 32 << 20;

/// An error if there is no room for `bytes` more below `directory`, which need not exist yet.
pub fn check(directory: &Path, bytes: u64) -> Result<()> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(there).map_err(|e| Error::io(there, e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let least = bytes.saturating_add(RESERVE);
    if bytes == 0 || least <= free {
        return Ok(());
    }
    let message = format!("the disk has no room: {least} bytes are needed, {free} are free");
    Err(Error::new(Kind::DownloadFailed, directory.display().to_string(), message)
        .hint("mlxk-rm --prune frees what nothing uses; HF_HUB_CACHE names another disk"))
}
