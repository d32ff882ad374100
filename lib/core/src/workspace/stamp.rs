//! Whether a file is what it was when it was first looked at.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::store::directory::entries;

/// A file as it was.
#[derive(Debug)]
pub struct Stamp {
    path: PathBuf,
    /// Which file it was, of what size, and when it was changed.
    was: ([u64; 3], [i64; 4]),
}

impl Stamp {
    /// The file `path` as it is now.
    pub fn take(path: impl Into<PathBuf>) -> Result<Stamp> {
        let path = path.into();
        let data = fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        let file = [data.dev(), data.ino(), data.len()];
        let changed = [data.mtime(), data.mtime_nsec(), data.ctime(), data.ctime_nsec()];
        Ok(Stamp { path, was: (file, changed) })
    }

    /// The weights and the JSON files directly in the directory `dir`.
    pub fn of_model(dir: &Path) -> Result<Vec<Stamp>> {
        let counts = |path: &PathBuf| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("safetensors" | "json")) && path.is_file()
        };
        let paths = entries(dir)?.into_iter().map(|(_, path)| path);
        paths.filter(counts).map(Stamp::take).collect()
    }

    /// Errors if the file is another now, or was written to.
    pub fn check(&self) -> Result<()> {
        match Stamp::take(&*self.path)?.was == self.was {
            true => Ok(()),
            false => {
                let what = "changed while it was read";
                Err(Error::new(Kind::InvalidModel, self.path.display().to_string(), what))
            }
        }
    }
}
