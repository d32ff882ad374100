//! Stamps of files, which show whether a file changed while it was in use.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::store::directory::entries;

/// The identity, size and times of a file at one moment.
#[derive(Debug)]
pub struct Stamp {
    path: PathBuf,
    /// Device, inode and size; modification and change time in seconds and nanoseconds.
    state: ([u64; 3], [i64; 4]),
}

impl Stamp {
    /// The stamp of the file `path`.
    pub fn take(path: impl Into<PathBuf>) -> Result<Stamp> {
        let path = path.into();
        let data = fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        let file = [data.dev(), data.ino(), data.len()];
        let changed = [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()];
        Ok(Stamp { path, state: (file, changed) })
    }

    /// The stamps of the safetensors and JSON files directly in the directory `dir`.
    pub fn of_model(dir: &Path) -> Result<Vec<Stamp>> {
        let counts = |path: &PathBuf| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("safetensors" | "json")) && path.is_file()
        };
        let paths = entries(dir)?.into_iter().map(|(_, path)| path);
        paths.filter(counts).map(Stamp::take).collect()
    }

    /// Checks that the file is unchanged.
    ///
    /// # Errors
    /// `InvalidModel` if the file was replaced or written to.
    pub fn check(&self) -> Result<()> {
        match Stamp::take(&*self.path)?.state == self.state {
            true => Ok(()),
            false => Err(Error::at(Kind::InvalidModel, &self.path, "changed while it was read")),
        }
    }
}
