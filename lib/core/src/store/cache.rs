//! The hub cache in the layout of huggingface_hub: `models--org--name/{blobs,refs,snapshots}`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::directory::{entries, is_absent};
use super::{Found, Origin, Revisions};
use crate::error::{Error, Result};
use crate::regular_file::{self, read_small};

const PREFIX: &str = "models--";

/// The maximum size of a ref in bytes.
const MAX_REF: u64 = 4096;

/// A cached model with all its revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    /// The name of the model, `org/name`.
    pub name: String,
    /// The directory `models--org--name`.
    pub path: PathBuf,
}

/// A revision of a cached model on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name of the directory: a commit hash.
    pub revision: String,
    /// The snapshot directory.
    pub path: PathBuf,
    /// The time when the directory last changed.
    pub modified: SystemTime,
}

/// A branch, a tag or another name of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    /// The name of the ref, such as `main` or `refs/pr/1`.
    pub name: String,
    /// The file that holds the commit.
    pub path: PathBuf,
    /// The commit hash in the file.
    pub commit: String,
}

/// The cached models below `hub`, sorted by name; empty if the directory does not exist.
pub fn repos(hub: &Path) -> Result<Vec<Repo>> {
    let mut repos = Vec::new();
    for (name, path) in entries(hub)? {
        if let Some(name) = decode(&name)
            && !is_hidden(&name)
            && path.is_dir()
        {
            repos.push(Repo { name, path });
        }
    }
    repos.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(repos)
}

/// The cached model `name` below `hub`, if it exists.
pub fn repo(hub: &Path, name: &str) -> Option<Repo> {
    let directory = encode(name);
    let name = decode(&directory).filter(|name| !is_hidden(name))?;
    let path = hub.join(directory);
    path.is_dir().then_some(Repo { name, path })
}

/// The name of the directory of the model `name` in the cache.
pub fn encode(name: &str) -> String {
    format!("{PREFIX}{}", name.replace('/', "--"))
}

/// The name of the model whose directory is called `directory`; none for other directories.
///
/// The first `--` separates organization and name. Names on the Hub contain no `--`; a name that does
/// is restored if its organization does not.
pub fn decode(directory: &str) -> Option<String> {
    let name = directory.strip_prefix(PREFIX).filter(|name| !name.is_empty())?;
    Some(name.replacen("--", "/", 1))
}

/// True for directories that test suites of the cache leave behind; listings skip them.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.contains("TEST-CACHE-SENTINEL")
}

impl Repo {
    /// The revisions on disk, newest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut snapshots = Vec::new();
        for (revision, path) in entries(&self.path.join("snapshots"))? {
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() && !revision.starts_with('.') => metadata,
                Ok(_) => continue,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::io(&path, e)),
            };
            let modified = metadata.modified().map_err(|e| Error::io(&path, e))?;
            snapshots.push(Snapshot { revision, path, modified });
        }
        snapshots.sort_by(|a, b| (b.modified, &a.revision).cmp(&(a.modified, &b.revision)));
        Ok(snapshots)
    }

    /// The refs, sorted by name.
    pub fn refs(&self) -> Result<Vec<Ref>> {
        let mut refs = Vec::new();
        collect_refs(&self.path.join("refs"), "", &mut refs)?;
        refs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(refs)
    }

    /// The name and directory of the current revision: `refs/main`, else the newest.
    pub fn current(&self) -> Result<Option<(String, PathBuf)>> {
        let main = self.path.join("refs/main");
        match read_small(&main, MAX_REF) {
            Ok(content) => {
                let commit = commit_of(&content);
                let path = self.path.join("snapshots").join(&commit);
                if is_plain(&commit) && path.is_dir() {
                    return Ok(Some((commit, path)));
                }
            }
            Err(e) if is_absent(&e) || regular_file::is_unfit(&e) => {}
            Err(e) => return Err(Error::io(&main, e)),
        }
        Ok(self.snapshots()?.into_iter().next().map(|s| (s.revision, s.path)))
    }

    /// True if none of the model's directories is a link.
    pub(crate) fn is_whole(&self) -> Result<bool> {
        let snapshots = self.path.join("snapshots");
        let mut parts = vec![self.path.clone(), self.path.join("blobs"), snapshots.clone()];
        parts.extend(entries(&snapshots)?.into_iter().map(|(_, path)| path));
        Ok(!parts.iter().any(|part| part.is_symlink()))
    }

    /// The entries of this model in a listing: at least one.
    ///
    /// A model that cannot be read is listed without a snapshot; the probe reports the reason.
    pub(crate) fn found(&self, revisions: Revisions) -> Vec<Found> {
        let snapshots = match revisions {
            Revisions::Current => self.current().map(|current| current.into_iter().collect()),
            Revisions::All => self.all(),
        };
        match snapshots {
            Ok(snapshots) if !snapshots.is_empty() => {
                snapshots.into_iter().map(|(revision, path)| self.at(revision, path)).collect()
            }
            _ => vec![self.bare()],
        }
    }

    /// The model at `revision`, whose directory is `path`.
    pub(crate) fn at(&self, revision: String, path: PathBuf) -> Found {
        Found { path, revision: Some(revision), ..self.bare() }
    }

    /// The model without a revision.
    pub(crate) fn bare(&self) -> Found {
        Found {
            name: self.name.clone(),
            path: self.path.join("snapshots"),
            revision: None,
            origin: Origin::Cache { repo: self.path.clone() },
        }
    }

    fn all(&self) -> Result<Vec<(String, PathBuf)>> {
        let snapshots = self.snapshots()?;
        Ok(snapshots.into_iter().map(|s| (s.revision, s.path)).collect())
    }
}

/// Adds the refs of a directory and its subdirectories: `refs/refs/pr/1` is the ref `refs/pr/1`.
fn collect_refs(directory: &Path, prefix: &str, refs: &mut Vec<Ref>) -> Result<()> {
    for (name, path) in entries(directory)? {
        let name = format!("{prefix}{name}");
        let metadata = match fs::symlink_metadata(&path) {
            Err(e) if is_absent(&e) => continue,
            metadata => metadata.map_err(|e| Error::io(&path, e))?,
        };
        if metadata.is_dir() {
            collect_refs(&path, &format!("{name}/"), refs)?;
        } else if metadata.is_file() {
            let commit = match read_small(&path, MAX_REF) {
                Err(e) if is_absent(&e) => continue,
                content => commit_of(&content.map_err(|e| Error::io(&path, e))?),
            };
            refs.push(Ref { name, path, commit });
        }
    }
    Ok(())
}

/// The commit in the content of a ref.
fn commit_of(content: &[u8]) -> String {
    String::from_utf8_lossy(content).trim().to_owned()
}

/// True if the text is the name of a directory entry and no path.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}
