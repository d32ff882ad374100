//! The locks that huggingface_hub takes while it works on a cache: flock on a file that stays.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};

/// How often a lock is asked for that somebody else holds.
const PAUSE: Duration = Duration::from_millis(100);

/// The mode of the locks of blobs and revisions, as huggingface_hub has it: for users and groups.
pub const MODE: u32 = 0o664;

/// Nobody else does what the lock stands for while this value lives.
#[derive(Debug)]
pub struct Lock {
    /// Open, and locked where the file system can.
    _file: File,
}

/// Takes the lock `path`, however long that takes; `check` can end it, and `waiting` hears of it once.
///
/// A new lock file gets all of `mode`. On a file system without locks this does nothing.
pub fn take(
    path: &Path,
    mode: u32,
    check: &dyn Fn() -> Result<()>,
    waiting: &dyn Fn(),
) -> Result<Lock> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|e| Error::io(path, e))?;
    }
    let mut told = false;
    loop {
        check()?;
        if let Some(lock) = try_take(path, mode)? {
            return Ok(lock);
        }
        if !told {
            waiting();
            told = true;
        }
        thread::sleep(PAUSE);
    }
}

/// Takes the lock `path`, in a directory that is there, if nobody else holds it.
pub fn try_take(path: &Path, mode: u32) -> Result<Option<Lock>> {
    let at = |e| Error::io(path, e);
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(mode);
        let file = options.open(path).map_err(at)?;
        share(&file, mode).map_err(at)?;
        match file.try_lock() {
            Ok(()) if is_current(&file, path).map_err(at)? => {
                return Ok(Some(Lock { _file: file }));
            }
            Ok(()) => {} // who had it before removed it
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                return Ok(Some(Lock { _file: file }));
            }
            Err(TryLockError::Error(e)) => return Err(at(e)),
            Err(TryLockError::WouldBlock) => return Ok(None),
        }
    }
}

/// Gives the file all of `mode`, whatever the umask took away: other users work in the cache too.
pub fn share(file: &File, mode: u32) -> io::Result<()> {
    let now = file.metadata()?.mode() & 0o777;
    if now & mode == mode {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(now | mode)) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()), // another user's own
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
