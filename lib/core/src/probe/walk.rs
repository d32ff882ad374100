//! Lists the files of a model's directory, with links followed inside their bounds.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::bounds::Bounds;
use crate::regular_file;
use crate::store::Found;

/// The maximum number of files; the walk ends there.
const MAX_FILES: usize = 20_000;

/// The maximum depth of directories; deeper ones are not entered.
const MAX_DEPTH: usize = 12;

/// The range of sizes, in bytes, of pointer files of Git LFS.
const POINTER_SIZES: std::ops::Range<u64> = 100..200;

/// A file of the model.
#[derive(Debug, PartialEq)]
pub struct File {
    /// The path of the file, relative to the model.
    pub path: PathBuf,
    /// The size of the file in bytes, with links followed.
    pub size: u64,
    /// True if the file is a pointer of Git LFS whose content was never fetched.
    pub pointer: bool,
}

impl File {
    /// True if the file has the given extension.
    pub fn is(&self, extension: &str) -> bool {
        self.path.extension() == Some(OsStr::new(extension))
    }
}

/// An entry of a model's directory that is not a file of the model.
#[derive(Debug, PartialEq)]
pub struct Stray {
    /// The path of the entry, relative to the model.
    pub path: PathBuf,
    /// The reason why it is not a file of the model, in words that continue the path.
    pub reason: String,
}

/// The files of a model and the strays, each sorted by path.
///
/// Hidden directories, which belong to Git or editors, are skipped.
///
/// # Errors
/// If the directory of the model cannot be listed; a subdirectory becomes a [`Stray`].
pub fn walk(found: &Found) -> io::Result<(Vec<File>, Vec<Stray>)> {
    let mut walk = Walk {
        model: &found.path,
        bounds: Bounds::new(found),
        files: Vec::new(),
        strays: Vec::new(),
    };
    walk.directory(Path::new(""), 0)?;
    walk.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    walk.strays.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok((walk.files, walk.strays))
}

/// The file at `path` in the sorted `files`.
pub fn find<'a>(files: &'a [File], path: &Path) -> Option<&'a File> {
    let at = files.binary_search_by(|file| file.path.as_path().cmp(path)).ok()?;
    files.get(at)
}

struct Walk<'a> {
    model: &'a Path,
    bounds: Bounds<'a>,
    files: Vec<File>,
    strays: Vec<Stray>,
}

impl Walk<'_> {
    fn directory(&mut self, relative: &Path, depth: usize) -> io::Result<()> {
        for entry in fs::read_dir(self.model.join(relative))? {
            let entry = entry?;
            let path = relative.join(entry.file_name());
            if self.files.len() + self.strays.len() >= MAX_FILES {
                self.stray(path, format!("is one of more than {MAX_FILES} files"));
                return Ok(());
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.enter(path, depth + 1);
            } else if kind.is_symlink() {
                self.link(path);
            } else if kind.is_file() {
                match entry.metadata() {
                    // A running download removed it after the directory was read.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    data => self.file(path, data?.len()),
                }
            } else {
                self.stray(path, "is neither a file nor a directory".to_owned());
            }
        }
        Ok(())
    }

    fn enter(&mut self, path: PathBuf, depth: usize) {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            return;
        }
        if depth > MAX_DEPTH {
            return self.stray(path, format!("lies more than {MAX_DEPTH} directories deep"));
        }
        match self.directory(&path, depth) {
            // It was removed after the directory above was read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => self.stray(path, format!("cannot be read: {e}")),
            Ok(()) => {}
        }
    }

    fn link(&mut self, path: PathBuf) {
        match self.bounds.follow(&path) {
            // The files behind a link to a directory are listed in their own place, or not part of
            // the model.
            Ok(data) if data.is_dir() => {}
            Ok(data) if data.is_file() => self.file(path, data.len()),
            Ok(_) => self.stray(path, "is neither a file nor a directory".to_owned()),
            Err(reason) => self.stray(path, reason),
        }
    }

    fn file(&mut self, path: PathBuf, size: u64) {
        let pointer = POINTER_SIZES.contains(&size) && is_pointer(&self.model.join(&path));
        self.files.push(File { path, size, pointer });
    }

    fn stray(&mut self, path: PathBuf, reason: String) {
        self.strays.push(Stray { path, reason });
    }
}

/// True if the file begins like a pointer of Git LFS; false if it cannot be read, which is reported
/// when its content is needed.
fn is_pointer(path: &Path) -> bool {
    let start = b"version https://git-lfs.github.com/spec/v1";
    let mut head = [0; 42];
    let read = regular_file::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && &head == start
}
