//! The content hash of a workspace, version 2, which does not depend on its name or on file times.
//!
//! The hash is the SHA-256 over `path NUL sha` of every file in the order of paths. The `sha` of a
//! safetensors file covers its header only, that of a file above 1 GiB its name and size, and that of
//! a link its target.

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::digest::{self, Hasher};
use crate::error::{Error, Kind, Result};
use crate::fnmatch;
use crate::regular_file;

/// The default patterns of excluded files; a pattern with a trailing slash excludes directories.
#[rustfmt::skip] // in the order of mlx-knife's list, which is part of the sentinel
pub const EXCLUDED: &[&str] = &[
    ".hf_cache/", ".mlxk_workspace.json", ".git/", ".github/", "__pycache__/", ".vscode/", ".idea/",
    ".ipynb_checkpoints/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".tox/",
    "node_modules/", ".venv/", "venv/", "*.lock", "*.tmp", "*.log", "*.bak", ".DS_Store", "._*",
    ".Spotlight-V100/", ".Trashes/", ".fseventsd/", ".TemporaryItems/", ".apdisk", "Icon\r",
    "Thumbs.db", "desktop.ini", "$RECYCLE.BIN/", "System Volume Information/", "*~", ".*.swp",
    ".*.swo",
];

/// The size in bytes above which a file is hashed by name and size.
const LARGE: u64 = 1 << 30;
/// The maximum length of a safetensors header in bytes.
const LONGEST_HEADER: u64 = 100 << 20;

/// A file or link in the `file_index` of a sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path relative to the workspace, its parts in Unicode NFC and joined by `/`.
    pub path: String,
    /// The size in bytes; 0 for a link.
    pub size: u64,
    /// The modification time in nanoseconds since the epoch; 0 for a link.
    pub mtime_ns: i64,
    /// The digest: `sha256:` and 64 hexadecimal digits.
    pub sha: String,
}

/// A file or link that the hash covers, not read yet.
#[derive(Debug)]
pub(crate) struct Item {
    pub path: String,
    pub size: u64,
    pub mtime_ns: i64,
    /// The digest of a link's target; none for a file.
    pub link: Option<String>,
    disk: PathBuf,
}

/// The entries of the workspace `root`, sorted by path; the files are read in parallel.
///
/// # Errors
/// If `config.json` is missing, a link leads out of the workspace, a name is not UTF-8, a safetensors
/// file has no header, or a file cannot be read; such a workspace has no content hash.
pub fn index(root: &Path, exclude: &[impl AsRef<str> + Sync]) -> Result<Vec<Entry>> {
    items(root, exclude)?.par_iter().map(Item::entry).collect()
}

/// The content hash of an index: `sha256:` and 64 hexadecimal digits.
pub fn aggregate(index: &[Entry]) -> String {
    let mut hash = Sha256::new();
    for entry in index {
        hash.update(entry.path.as_bytes());
        hash.update([0]);
        hash.update(entry.sha.as_bytes());
    }
    name(hash)
}

/// The files and links of the workspace `root`, sorted by path.
pub(crate) fn items(root: &Path, exclude: &[impl AsRef<str>]) -> Result<Vec<Item>> {
    let root = root.canonicalize().map_err(|e| Error::io(root, e))?;
    if !root.join("config.json").is_file() {
        return Err(no_hash(&root, "no config.json there"));
    }
    let mut items = Vec::new();
    walk(&root, &root, "", exclude, &mut items)?;
    items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(items)
}

impl Item {
    /// True if the digest of the entry covers the whole content.
    pub fn is_covered(&self) -> bool {
        self.link.is_some() || !self.path.ends_with(".safetensors") && self.size <= LARGE
    }

    /// The path of the file on disk.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// The entry of this item: the file is read.
    pub fn entry(&self) -> Result<Entry> {
        let sha = match &self.link {
            Some(digest) => digest.clone(),
            None => content(&self.disk, &self.path, self.size)?,
        };
        Ok(Entry { path: self.path.clone(), size: self.size, mtime_ns: self.mtime_ns, sha })
    }
}

fn walk(
    root: &Path,
    directory: &Path,
    prefix: &str,
    exclude: &[impl AsRef<str>],
    items: &mut Vec<Item>,
) -> Result<()> {
    let at = |e| Error::io(directory, e);
    for entry in fs::read_dir(directory).map_err(at)? {
        let disk = entry.map_err(at)?.path();
        let name = disk.file_name().and_then(|name| name.to_str());
        let name: String =
            name.ok_or_else(|| no_hash(&disk, "the name is not UTF-8"))?.nfc().collect();
        let path = format!("{prefix}{name}");
        let metadata = fs::symlink_metadata(&disk).map_err(|e| Error::io(&disk, e))?;
        if metadata.is_symlink() {
            let link = Some(link_digest(root, &disk)?);
            items.push(Item { path, size: 0, mtime_ns: 0, link, disk });
        } else if metadata.is_dir() && !is_excluded(exclude, &name, true) {
            walk(root, &disk, &format!("{path}/"), exclude, items)?;
        } else if metadata.is_file() && !is_excluded(exclude, &name, false) {
            let (size, mtime_ns) = (metadata.len(), mtime_ns(&metadata));
            items.push(Item { path, size, mtime_ns, link: None, disk });
        }
    }
    Ok(())
}

fn is_excluded(exclude: &[impl AsRef<str>], name: &str, directory: bool) -> bool {
    exclude.iter().any(|pattern| match pattern.as_ref().strip_suffix('/') {
        Some(pattern) => directory && fnmatch::matches(pattern, name),
        None => !directory && fnmatch::matches(pattern.as_ref(), name),
    })
}

fn mtime_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// The digest of a link's final target, which need not exist.
fn link_digest(root: &Path, link: &Path) -> Result<String> {
    let target = resolved(link).map_err(|e| Error::io(link, e))?;
    let inside = target.strip_prefix(root).ok().and_then(Path::to_str);
    let inside = match inside {
        Some("") => ".",
        Some(inside) => inside,
        None => return Err(no_hash(link, "a link that leads out of the workspace")),
    };
    Ok(name(Sha256::new().chain_update(b"SYMLINK\0").chain_update(inside)))
}

/// The path with every link resolved, even if its last parts do not exist.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    let Some(parent) = path.parent() else {
        return Ok(path.to_owned());
    };
    if let Ok(target) = fs::read_link(path) {
        return resolved(&parent.join(target));
    }
    let mut target = resolved(parent)?;
    match path.file_name() {
        Some(name) => target.push(name),
        None => _ = target.pop(), // it ends in `..`
    }
    Ok(target)
}

/// The digest of a file: of its content, its header, or its name and size.
fn content(disk: &Path, path: &str, size: u64) -> Result<String> {
    let base = path.rsplit('/').next().unwrap_or(path);
    let mut hash = Sha256::new();
    if base.ends_with(".safetensors") {
        hash.update(header(disk)?);
    } else if size > LARGE {
        hash.update(format!("{base}\0{size}"));
    } else {
        return Ok(format!("sha256:{}", digest::file(disk, Hasher::sha256(), |_| Ok(()))?));
    }
    Ok(name(hash))
}

/// The JSON header of a safetensors file, whose length is in the first 8 bytes.
fn header(disk: &Path) -> Result<Vec<u8>> {
    let mut file = regular_file::open(disk).map_err(|e| Error::io(disk, e))?;
    let mut length = [0; 8];
    let read = || -> io::Result<Option<Vec<u8>>> {
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length == 0 || length > LONGEST_HEADER {
            return Ok(None);
        }
        let mut header = Vec::new();
        file.take(length).read_to_end(&mut header)?;
        Ok((header.len() as u64 == length).then_some(header))
    };
    match read() {
        Ok(Some(header)) => Ok(header),
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(Error::io(disk, e)),
        _ => Err(no_hash(disk, "no safetensors header in it")),
    }
}

fn name(hash: Sha256) -> String {
    let digits = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{digits}")
}

fn no_hash(path: &Path, message: &str) -> Error {
    Error::at(Kind::InvalidModel, path, message).hint("such a workspace has no content hash")
}
