//! Signs of a running download: held locks and growing files of a cached model.
//!
//! huggingface_hub locks `.locks/models--org--name/ETAG.lock` with flock while it fetches a blob into
//! `blobs/ETAG.*.incomplete`. The lock file remains afterwards, so only a held lock is a sign.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::directory::{entries, is_absent};
use crate::error::Result;

/// The time after its last write for which a download counts as running.
const ACTIVE: Duration = Duration::from_secs(60);

/// The held locks and the files in progress of the model in `repo`; empty if nothing is downloading.
pub fn busy(hub: &Path, repo: &Path) -> Result<Vec<PathBuf>> {
    let mut signs = Vec::new();
    for lock in files(hub, repo)? {
        if is_held(&lock) {
            signs.push(lock);
        }
    }
    let since = SystemTime::now().checked_sub(ACTIVE);
    for path in unfinished(repo)? {
        if since.is_some_and(|since| !is_older(&path, since)) {
            signs.push(path);
        }
    }
    Ok(signs)
}

/// The lock files of the model in `repo`, held or not, sorted.
pub fn files(hub: &Path, repo: &Path) -> Result<Vec<PathBuf>> {
    let directory = hub.join(".locks").join(repo.file_name().unwrap_or_default());
    with_suffix(&directory, ".lock")
}

/// The incomplete blobs of the model in `repo`, sorted.
pub fn unfinished(repo: &Path) -> Result<Vec<PathBuf>> {
    with_suffix(&repo.join("blobs"), ".incomplete")
}

/// True if another process holds the lock, or if the lock cannot be tried.
pub fn is_held(lock: &Path) -> bool {
    match File::options().read(true).write(true).open(lock) {
        Ok(file) => file.try_lock().is_err(),
        Err(e) => !is_absent(&e),
    }
}

/// True if the file was last written before `time`, or no longer exists.
pub fn is_older(path: &Path, time: SystemTime) -> bool {
    fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_or(true, |modified| modified < time)
}

fn is_regular(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn with_suffix(directory: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = entries(directory)?
        .into_iter()
        .filter(|(name, path)| name.ends_with(suffix) && is_regular(path))
        .map(|(_, path)| path)
        .collect();
    paths.sort();
    Ok(paths)
}
