//! Copies of files, as reflinks if the file system supports them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::atomic_write::TEMP_PREFIX;
use crate::digest::{self, Digest, Hasher};
use crate::error::{Error, Kind, Result};
use crate::regular_file;

/// Bytes copied between two calls of the progress function.
const CHUNK: u64 = 16 << 20;

/// Bytes hashed and copied at a time: few system calls, and the buffer stays in the processor's cache.
const BUFFER: usize = 256 << 10;

/// A file or a link to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The path of the item, relative to the source directory.
    pub path: PathBuf,
    /// The size in bytes; 0 for a link.
    pub size: u64,
    /// The target of a link as it is stored.
    pub link: Option<PathBuf>,
}

/// The files and links of the directory `root` for whose relative path `wanted` is true, sorted.
///
/// # Errors
/// If a link leads out of the directory or would do so in a copy, an entry is neither a file nor a
/// link nor a directory, or an entry cannot be read.
pub fn items(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<Item>> {
    let root = root.canonicalize().map_err(|e| Error::io(root, e))?;
    let mut items = Vec::new();
    walk(&root, Path::new(""), wanted, &mut items)?;
    items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(items)
}

/// Copies an item of the directory `from` into the directory `to`, where its name must be free.
///
/// `copied` is called with the number of bytes after each part; if it returns an error, the copy
/// stops.
pub fn item(
    from: &Path,
    to: &Path,
    item: &Item,
    copied: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let target = to.join(&item.path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
    }
    match &item.link {
        Some(link) => std::os::unix::fs::symlink(link, &target).map_err(|e| Error::io(&target, e)),
        None => file(&from.join(&item.path), &target, copied),
    }
}

/// Copies a file to the new file `to`; `copied` is as for [`item`].
pub fn file(from: &Path, to: &Path, mut copied: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let size = fs::metadata(from).map_err(|e| Error::io(from, e))?.len();
    // The reason why a reflink fails is irrelevant: a copy reports its own.
    if reflink_copy::reflink(from, to).is_ok() {
        return copied(size);
    }
    let source = regular_file::open(from).map_err(|e| Error::io(from, e))?;
    let at = |e| Error::io(to, e);
    let mut target = File::create_new(to).map_err(at)?;
    loop {
        match io::copy(&mut (&source).take(CHUNK), &mut target).map_err(at)? {
            0 => return target.sync_all().map_err(at),
            count => copied(count)?,
        }
    }
}

/// Copies a file as [`file()`] does, and returns its digest; the file is read once.
pub fn hashed(
    from: &Path,
    to: &Path,
    mut hasher: Hasher,
    mut copied: impl FnMut(u64) -> Result<()>,
) -> Result<Digest> {
    if reflink_copy::reflink(from, to).is_ok() {
        return digest::file(to, hasher, copied);
    }
    let mut source = regular_file::open(from).map_err(|e| Error::io(from, e))?;
    let at = |e| Error::io(to, e);
    let mut target = File::create_new(to).map_err(at)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let bytes = match source.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            read => &buffer[..read.map_err(|e| Error::io(from, e))?],
        };
        if bytes.is_empty() {
            target.sync_all().map_err(at)?;
            return Ok(hasher.finish());
        }
        hasher.update(bytes);
        target.write_all(bytes).map_err(at)?;
        copied(bytes.len() as u64)?;
    }
}

/// True if a copy of the file `from` in the directory `to` takes no space, since the file system makes
/// a reflink.
pub fn is_free(from: &Path, to: &Path) -> bool {
    let mut trial = tempfile::Builder::new();
    let trial = trial.prefix(TEMP_PREFIX).make_in(to, |path| reflink_copy::reflink(from, path));
    trial.is_ok()
}

fn walk(
    root: &Path,
    relative: &Path,
    wanted: &dyn Fn(&Path) -> bool,
    items: &mut Vec<Item>,
) -> Result<()> {
    let directory = root.join(relative);
    let at = |e| Error::io(&directory, e);
    for entry in fs::read_dir(&directory).map_err(at)? {
        let entry = entry.map_err(at)?;
        let path = relative.join(entry.file_name());
        let disk = entry.path();
        let data = fs::symlink_metadata(&disk).map_err(|e| Error::io(&disk, e))?;
        if !wanted(&path) {
            continue;
        }
        if data.is_dir() {
            walk(root, &path, wanted, items)?;
        } else if data.is_symlink() {
            items.push(Item { path, size: 0, link: Some(link(root, &disk)?) });
        } else if data.is_file() {
            items.push(Item { path, size: data.len(), link: None });
        } else {
            return Err(refused(&disk, "neither a file nor a directory"));
        }
    }
    Ok(())
}

/// The target of a link that stays below `root`, and in a copy below that copy.
fn link(root: &Path, link: &Path) -> Result<PathBuf> {
    let at = |e| Error::io(link, e);
    let shown = fs::read_link(link).map_err(at)?;
    match link.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(refused(link, "a link to nothing")),
        Err(e) => Err(at(e)),
        Ok(target) if !target.starts_with(root) => {
            Err(refused(link, "a link that leads out of the workspace"))
        }
        Ok(_) if shown.is_absolute() => {
            Err(refused(link, "an absolute link, which would lead back here from a copy"))
        }
        Ok(_) => Ok(shown),
    }
}

fn refused(path: &Path, message: &str) -> Error {
    Error::at(Kind::InvalidModel, path, message)
}
