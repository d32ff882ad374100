//! One walk over a model's directory that follows links no further than they may lead.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::store::{Found, Origin};

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
        bounds: Bounds::new(found)?,
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
    let at = files
        .binary_search_by(|file| file.path.as_path().cmp(path))
        .ok()?;
    files.get(at)
}

struct Walk {
    bounds: Bounds,
    files: Vec<File>,
    strays: Vec<Stray>,
}

impl Walk {
    fn directory(&mut self, relative: &Path, depth: usize) -> io::Result<()> {
        for entry in fs::read_dir(self.bounds.model.join(relative))? {
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
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
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
        let pointer = POINTER_SIZES.contains(&size) && is_pointer(&self.bounds.model.join(&path));
        self.files.push(File {
            path,
            size,
            pointer,
        });
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

/// Where the links of a model may lead.
struct Bounds {
    /// The directory of the model itself, with no link in its path.
    model: PathBuf,
    /// The directories that may hold what its links show, likewise.
    roots: Vec<PathBuf>,
    /// How the user calls that place.
    place: &'static str,
}

impl Bounds {
    /// A workspace keeps to itself. A snapshot in the cache links to its repository's `blobs`,
    /// and those may link on to the store that all repositories share (huggingface_hub 2).
    fn new(found: &Found) -> io::Result<Bounds> {
        let model = found.path.canonicalize()?;
        let Origin::Cache { repo } = &found.origin else {
            return Ok(Bounds {
                roots: vec![model.clone()],
                model,
                place: "workspace",
            });
        };
        let repo = repo.canonicalize()?;
        let mut roots = vec![repo.join("blobs")];
        if let Some(hub) = repo.parent() {
            let shared = hub.join("blobs");
            if shared.join(".huggingface-shared-blobs").is_file() {
                roots.push(shared);
            }
        }
        Ok(Bounds {
            model,
            roots,
            place: "cache",
        })
    }

    /// What the link at `path`, relative to the model, shows in the end.
    fn follow(&self, path: &Path) -> Result<fs::Metadata, String> {
        let link = self.model.join(path);
        let shown = fs::read_link(&link).map_err(|e| format!("cannot be read: {e}"))?;
        match self.blob(&link, &shown) {
            Some(data) => Ok(data),
            None => self.resolve(&link, &shown),
        }
    }

    /// The file that a link shows if it is one that lies directly in the first of the roots: so
    /// it is almost always, and this takes a single look at the disk.
    fn blob(&self, link: &Path, shown: &Path) -> Option<fs::Metadata> {
        let target = plain(&link.parent()?.join(shown))?;
        if target.parent() != self.roots.first().map(PathBuf::as_path) {
            return None;
        }
        fs::symlink_metadata(target)
            .ok()
            .filter(fs::Metadata::is_file)
    }

    /// The same for any link.
    fn resolve(&self, link: &Path, shown: &Path) -> Result<fs::Metadata, String> {
        let shown = shown.display();
        let target = match link.canonicalize() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(format!("links to {shown}, which is not there"));
            }
            target => target.map_err(|e| format!("links to {shown}: {e}"))?,
        };
        let allowed = |root: &PathBuf| {
            root.canonicalize()
                .is_ok_and(|root| target.starts_with(root))
        };
        if !target.starts_with(&self.model) && !self.roots.iter().any(allowed) {
            return Err(format!("links to {shown}, outside the {}", self.place));
        }
        fs::metadata(&target).map_err(|e| format!("links to {shown}: {e}"))
    }
}

/// The path without its `..`; right only where no directory on the way is a link.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => plain.pop().then_some(())?,
            part => plain.push(part),
        }
    }
    Some(plain)
}
