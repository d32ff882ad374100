//! The content hash of a workspace, version 2: what it holds, whatever it is called or when written.
//!
//! SHA-256 over `path NUL sha` of every file in the order of the paths; of a safetensors file only
//! the header counts, of one above 1 GiB only name and size, of a link where it leads.

use std::fs::{self, File, Metadata};
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

/// What a new workspace leaves out of its hash; with a slash behind it, a directory.
#[rustfmt::skip] // as the published list goes
pub const EXCLUDED: &[&str] = &[
    ".hf_cache/", ".mlxk_workspace.json", ".git/", ".github/", "__pycache__/", ".vscode/", ".idea/",
    ".ipynb_checkpoints/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".tox/",
    "node_modules/", ".venv/", "venv/", "*.lock", "*.tmp", "*.log", "*.bak", ".DS_Store", "._*",
    ".Spotlight-V100/", ".Trashes/", ".fseventsd/", ".TemporaryItems/", ".apdisk", "Icon\r",
    "Thumbs.db", "desktop.ini", "$RECYCLE.BIN/", "System Volume Information/", "*~", ".*.swp",
    ".*.swo",
];

/// Above this many bytes a file counts by name and size.
const LARGE: u64 = 1 << 30;
/// A safetensors header is not longer than this.
const LONGEST_HEADER: u64 = 100 << 20;

/// A file or link of a workspace, as its sentinel's `file_index` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the workspace, parts in NFC joined by `/`.
    pub path: String,
    /// Bytes; 0 for a link.
    pub size: u64,
    /// Nanoseconds since the epoch; 0 for a link.
    pub mtime_ns: i64,
    /// `sha256:` and 64 hexadecimal digits.
    pub sha: String,
}

/// What the hash covers, without reading any file.
#[derive(Debug)]
pub(crate) struct Item {
    pub path: String,
    pub size: u64,
    pub mtime_ns: i64,
    /// The fingerprint of a link.
    pub link: Option<String>,
    disk: PathBuf,
}

/// The entries of the workspace `root`, sorted by path, every file read as far as it counts.
///
/// Errors if there is no `config.json`, a link leads out of the workspace, a name is not UTF-8, a
/// safetensors file has no header, or something cannot be read: such a workspace has no hash.
pub fn index(root: &Path, exclude: &[impl AsRef<str> + Sync]) -> Result<Vec<Entry>> {
    items(root, exclude)?.par_iter().map(Item::entry).collect()
}

/// The hash of a whole index: `sha256:` and 64 hexadecimal digits.
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
    /// True if the digest of an entry covers all of the content.
    pub fn is_covered(&self) -> bool {
        self.link.is_some() || !self.path.ends_with(".safetensors") && self.size <= LARGE
    }

    /// Where the file lies.
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// The item with the digest of its content.
    pub fn entry(&self) -> Result<Entry> {
        let sha = match &self.link {
            Some(fingerprint) => fingerprint.clone(),
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
            let link = Some(fingerprint(root, &disk)?);
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

/// What stands for a link: the place it finally leads to, which need not exist.
fn fingerprint(root: &Path, link: &Path) -> Result<String> {
    let target = settle(link).map_err(|e| Error::io(link, e))?;
    let inside = target.strip_prefix(root).ok().and_then(Path::to_str);
    let inside = match inside {
        Some("") => ".",
        Some(inside) => inside,
        None => return Err(no_hash(link, "a link that leads out of the workspace")),
    };
    Ok(name(Sha256::new().chain_update(b"SYMLINK\0").chain_update(inside)))
}

/// The path with every link resolved, as far as there is something to resolve.
fn settle(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        done => return done,
    }
    let Some(parent) = path.parent() else {
        return Ok(path.to_owned());
    };
    if let Ok(target) = fs::read_link(path) {
        return settle(&parent.join(target));
    }
    let mut settled = settle(parent)?;
    match path.file_name() {
        Some(name) => settled.push(name),
        None => _ = settled.pop(), // it ends in `..`
    }
    Ok(settled)
}

/// The digest of a file's content, or of what stands for it.
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

/// The JSON of a safetensors file, which its first 8 bytes give the length of.
fn header(disk: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(disk).map_err(|e| Error::io(disk, e))?;
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
    Error::new(Kind::InvalidModel, path.display().to_string(), message)
        .hint("such a workspace has no content hash")
}
