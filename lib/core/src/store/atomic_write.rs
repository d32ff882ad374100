//! A file gets its name when it is whole, in one step with whatever had the name before.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};

/// How the name of whatever is not in its place yet begins, so that a run that was killed leaves
/// nothing that looks like something else.
pub const TEMP_PREFIX: &str = ".mlxk.";

/// Puts a file at `path` that `fill` writes; until it is whole and on the disk it lies in the
/// directory `aside`, of the same file system. Its mode is that of any new file.
///
/// # Errors
/// Those of `fill`, and of the disk; then what was at `path` still is.
pub fn atomic_write(
    path: &Path,
    aside: &Path,
    fill: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let at = |e| Error::io(path, e);
    let mut file = tempfile::Builder::new()
        .prefix(TEMP_PREFIX)
        .suffix(".tmp")
        .permissions(Permissions::from_mode(0o666)) // less the umask
        .tempfile_in(aside)
        .map_err(at)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all().map_err(at)?;
    file.persist(path).map_err(|e| at(e.error))?;
    Ok(())
}
