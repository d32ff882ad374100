//! Free space on the disk, checked before a large write.

use std::path::Path;

use rustix::fs::statvfs;

use crate::error::{Error, Kind, Result};

/// Bytes to leave free, for small files of the model and for other programs.
const RESERVE: u64 = 32 << 20;

/// Checks that the disk of `directory`, which need not exist yet, has room for `bytes` more.
///
/// # Errors
/// `Execution` if it has not.
pub fn check(directory: &Path, bytes: u64) -> Result<()> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(there).map_err(|e| Error::io(there, e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes == 0 || bytes.saturating_add(RESERVE) <= free {
        return Ok(());
    }
    let message = format!("the disk has no room: {bytes} bytes are to come, {free} are free");
    Err(Error::at(Kind::Execution, directory, message)
        .hint("mlxk-rm --prune frees what nothing uses"))
}
