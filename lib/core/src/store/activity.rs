//! Who is at work on a cached model: lock files that are held, downloads that still grow.
//!
//! huggingface_hub locks `.locks/models--org--name/ETAG.lock` with flock while it fetches a blob into
//! `blobs/ETAG.*.incomplete`, and leaves the lock file behind. So it is the lock that tells, not the file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::directory::{entries, is_absent};
use crate::error::Result;

/// How long a download may stand still and still count as running.
const STILL: Duration = Duration::from_secs(60);

/// What shows that somebody is fetching a part of the model in `repo` right now.
pub fn busy(hub: &Path, repo: &Path) -> Result<Vec<PathBuf>> {
    let mut signs = Vec::new();
    for lock in files(hub, repo)? {
        if is_held(&lock) {
            signs.push(lock);
        }
    }
    let since = SystemTime::now().checked_sub(STILL);
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

/// The blobs of the model in `repo` that a download has begun, sorted.
pub fn unfinished(repo: &Path) -> Result<Vec<PathBuf>> {
    with_suffix(&repo.join("blobs"), ".incomplete")
}

/// True if another process holds the lock, or if that cannot be found out.
pub fn is_held(lock: &Path) -> bool {
    match File::options().read(true).write(true).open(lock) {
        Ok(file) => file.try_lock().is_err(),
        Err(e) => !is_absent(&e),
    }
}

/// True if the file was last written before `time`, or is gone.
pub fn is_older(path: &Path, time: SystemTime) -> bool {
    fs::symlink_metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_or(true, |modified| modified < time)
}

fn with_suffix(directory: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = entries(directory)?
        .into_iter()
        .filter(|(name, path)| name.ends_with(suffix) && !path.is_symlink())
        .map(|(_, path)| path)
        .collect();
    paths.sort();
    Ok(paths)
}
