//! Listings of directories that may be missing or change while they are read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The names and paths of a directory's entries; empty if the directory does not exist.
///
/// Names that are not UTF-8 come with replacement characters; their paths are exact.
pub(crate) fn entries(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = match fs::read_dir(directory) {
        Err(e) if is_absent(&e) => return Ok(Vec::new()),
        read => read.map_err(|e| Error::io(directory, e))?,
    };
    read.map(|entry| {
        let entry = entry.map_err(|e| Error::io(directory, e))?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.path()))
    })
    .collect()
}

/// True if the file does not exist, or was removed since its directory was listed.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
