//! Atomic writes: a file appears under its name when it is complete.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// The prefix of the names of temporary files and links, which a killed program leaves behind.
pub const TEMP_PREFIX: &str = ".mlxk.";

/// Writes a file with `fill` and renames it to `path`, replacing a file of that name.
///
/// The temporary file is in the directory `temp`, which must be on the same file system, and is
/// synced to the disk first. The mode is that of any new file.
///
/// # Errors
/// If `fill` or the disk fails; then a former file at `path` is unchanged.
pub fn atomic_write(
    path: &Path,
    temp: &Path,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let at = |e| Error::io(path, e);
    let mut file = tempfile::Builder::new()
        .prefix(TEMP_PREFIX)
        .suffix(".tmp")
        .permissions(Permissions::from_mode(0o666)) // before the umask
        .tempfile_in(temp)
        .map_err(at)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all().map_err(at)?;
    file.persist(path).map_err(|e| at(e.error))?;
    Ok(())
}
