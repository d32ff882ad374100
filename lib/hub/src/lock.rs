//! The locks that huggingface_hub takes while it fetches a blob: flock on a file that stays.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use mlxk_core::{Error, Result};

/// How often a lock is asked for that somebody else holds.
const PAUSE: Duration = Duration::from_millis(100);

/// Nobody else fetches the blob while this value lives.
#[derive(Debug)]
pub struct Lock {
    /// Open, and locked where the file system can.
    _file: File,
}

/// Takes the lock `path`, however long that takes; `check` can end it, and `waiting` hears of it once.
///
/// On a file system without locks this does nothing: what is under a part's name is the same for all.
pub fn take(path: &Path, check: &dyn Fn() -> Result<()>, waiting: &dyn Fn()) -> Result<Lock> {
    let at = |e| Error::io(path, e);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(at)?;
    }
    let mut told = false;
    loop {
        check()?;
        // Other users of the cache must be able to take it too.
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o664);
        let file = options.open(path).map_err(at)?;
        match file.try_lock() {
            Ok(()) if is_current(&file, path).map_err(at)? => return Ok(Lock { _file: file }),
            Ok(()) => continue, // who had it before removed it
            Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => {
                return Ok(Lock { _file: file });
            }
            Err(TryLockError::Error(e)) => return Err(at(e)),
            Err(TryLockError::WouldBlock) => {}
        }
        if !told {
            waiting();
            told = true;
        }
        thread::sleep(PAUSE);
    }
}

/// True if the open file is still the one that `path` names.
pub(crate) fn is_current(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}
