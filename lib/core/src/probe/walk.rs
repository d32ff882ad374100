//! One walk over a model's directory that follows links no further than they may lead.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::bounds::Bounds;
use crate::store::Found;

/// A model with more files than this is not walked to its end.
const MAX_FILES: usize = 20_000;

/// Directories below this depth are not entered.
const MAX_DEPTH: usize = 12;

/// The sizes, in bytes, that the pointer files of Git LFS have.
const POINTER_SIZES: std::ops::Range<u64> = 100..200;

/// A file of the model.
#[derive(Debug, PartialEq)]
pub struct File {
    /// Its path, relative to the model.
    pub path: PathBuf,
    /// Its size in bytes; behind a link, that of the file linked to.
    pub size: u64,
    /// True if it is a pointer of Git LFS that stands for a file never fetched.
    pub pointer: bool,
}

impl File {
    /// True if the name ends in `.extension`.
    pub fn is(&self, extension: &str) -> bool {
        self.path.extension() == Some(OsStr::new(extension))
    }
}

/// Something in a model's directory that is no file of it.
#[derive(Debug, PartialEq)]
pub struct Stray {
    /// Its path, relative to the model.
    pub path: PathBuf,
    /// Why it does not count, in a few words that fit behind the path.
    pub reason: String,
}

/// The files of a model and what else there is, each sorted by path.
///
/// Hidden directories are passed over: what Git and editors keep is no part of a model.
///
/// # Errors
/// If the directory of the model cannot be listed; one below it becomes a [`Stray`].
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

/// The file at `path` among `files`, which are sorted.
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
                    // It went away while the directory was read: a download has moved on.
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
        if let Err(e) = self.directory(&path, depth) {
            self.stray(path, format!("cannot be read: {e}"));
        }
    }

    fn link(&mut self, path: PathBuf) {
        match self.bounds.follow(&path) {
            // Whatever a link to a directory shows lies in the model already, or is not its own.
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

/// True if the file begins as the pointers of Git LFS do; one that cannot be read is reported by
/// whoever needs its content.
fn is_pointer(path: &Path) -> bool {
    let start = b"version https://git-lfs.github.com/spec/v1";
    let mut head = [0; 42];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && &head == start
}
