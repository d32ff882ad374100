//! File locks compatible with huggingface_hub: flock on a file that is not removed.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::regular_file;

/// The pause between two attempts to take a lock.
const PAUSE: Duration = Duration::from_millis(100);

/// The file mode of locks of blobs and revisions in huggingface_hub: writable for user and group.
pub const MODE: u32 = 0o664;

/// A held lock; dropping the value releases it.
#[derive(Debug)]
pub struct Lock {
    /// The lock file, open, and locked if the file system supports locks.
    _file: File,
}

/// Takes the lock `path` and waits for it if necessary. An error of `check` ends the wait; `waiting`
/// is called once when it begins.
///
/// A new lock file gets the full `mode`, regardless of the umask. On a file system without locks the
/// lock is always free.
pub fn take(
    path: &Path,
    mode: u32,
    check: &dyn Fn() -> Result<()>,
    waiting: &dyn Fn(),
) -> Result<Lock> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|e| Error::io(path, e))?;
    }
    let mut reported = false;
    loop {
        check()?;
        if let Some(lock) = try_take(path, mode)? {
            return Ok(lock);
        }
        if !reported {
            waiting();
            reported = true;
        }
        thread::sleep(PAUSE);
    }
}

/// Takes the lock `path`, whose directory must exist; none if another process holds it.
pub fn try_take(path: &Path, mode: u32) -> Result<Option<Lock>> {
    let at = |e| Error::io(path, e);
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(mode);
        let file = options.custom_flags(regular_file::FLAGS).open(path).map_err(at)?;
        file.metadata().and_then(|data| regular_file::check(&data)).map_err(at)?;
        share(&file, mode).map_err(at)?;
        match file.try_lock() {
            Ok(()) if is_current(&file, path).map_err(at)? => {
                return Ok(Some(Lock { _file: file }));
            }
            Ok(()) => {} // the former holder removed the file
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                return Ok(Some(Lock { _file: file }));
            }
            Err(TryLockError::Error(e)) => return Err(at(e)),
            Err(TryLockError::WouldBlock) => return Ok(None),
        }
    }
}

/// Sets the bits of `mode` that the umask cleared, since other users share the cache.
pub fn share(file: &File, mode: u32) -> io::Result<()> {
    let now = file.metadata()?.mode() & 0o777;
    if now & mode == mode {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(now | mode)) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()), // another user owns the file
        done => done,
    }
}

/// True if the open file is still the one that `path` names.
pub fn is_current(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
