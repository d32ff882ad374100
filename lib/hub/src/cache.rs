//! A model's place in the hub cache, written exactly as huggingface_hub does: both may work on it at once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mlxk_core::store::atomic_write::{TEMP_PREFIX, atomic_write};
use mlxk_core::store::cache::encode;
use mlxk_core::store::shared::replace_link;
use mlxk_core::store::tree::Tree;
use mlxk_core::{Error, Result};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use crate::listing::{Listing, RemoteFile};
use crate::part;

/// Tells programs that make backups to leave the directory out; https://bford.info/cachedir/
const TAG: &str = "\
Signature: 8a477f597d28d172789f06886806bc55
# A cache of models from the Hugging Face Hub: what is here can be fetched again.
";

/// The place of one model.
#[derive(Clone, Debug)]
pub struct Cache {
    hub: PathBuf,
    repo: PathBuf,
}

impl Cache {
    /// The place of the model `id` in the cache `hub`, there or not.
    pub fn new(hub: &Path, id: &str) -> Cache {
        Cache { hub: hub.to_owned(), repo: hub.join(encode(id)) }
    }

    /// The directory of all models.
    pub fn hub(&self) -> &Path {
        &self.hub
    }

    /// The content of `file`.
    pub fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.repo.join("blobs").join(file.etag())
    }

    /// The content as far as it has come.
    pub fn part(&self, file: &RemoteFile) -> PathBuf {
        self.repo.join("blobs").join(format!("{}.mlxk.incomplete", file.etag()))
    }

    /// What is locked by whoever fetches `file`.
    pub fn lock(&self, file: &RemoteFile) -> PathBuf {
        self.lock_of(file.etag())
    }

    /// What is locked by whoever gives the files of the revision `commit` their names.
    pub fn lock_of(&self, commit: &str) -> PathBuf {
        let directory = self.hub.join(".locks").join(self.repo.file_name().unwrap_or_default());
        directory.join(format!("{commit}.lock"))
    }

    /// The files of the revision `commit`.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    /// The commit that the branch or tag `revision` was when it was last fetched.
    pub fn commit_of(&self, revision: &str) -> Result<Option<String>> {
        let path = self.repo.join("refs").join(revision);
        match fs::read_to_string(&path) {
            Ok(commit) => Ok(Some(commit.trim().to_owned())),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(e) => Err(Error::io(&path, e)),
        }
    }

    /// Makes the directories, and writes down what the revision holds.
    pub fn prepare(&self, listing: &Listing) -> Result<()> {
        for directory in ["blobs", "refs", "snapshots", "trees"] {
            let path = self.repo.join(directory);
            fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        }
        let tag = self.hub.join("CACHEDIR.TAG");
        match File::options().write(true).create_new(true).open(&tag) {
            Ok(mut file) => file.write_all(TAG.as_bytes()).map_err(|e| Error::io(&tag, e))?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io(&tag, e)),
        }
        let mut text = Vec::new();
        let mut json = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b" "));
        let path = Tree::path(&self.repo, &listing.commit);
        listing.tree().serialize(&mut json).map_err(|e| Error::io(&path, e.into()))?;
        self.put(&path, &text)
    }

    /// True if the snapshot of `commit` has `file`.
    pub fn has(&self, commit: &str, file: &RemoteFile) -> bool {
        fs::read_link(self.snapshot(commit).join(&file.path)).is_ok_and(|to| to == target(file))
    }

    /// Gives `files`, whose blobs are there, their names in the snapshot of `commit`, which is locked.
    ///
    /// A new snapshot appears with all of them at once.
    pub fn name(&self, commit: &str, files: &[&RemoteFile]) -> Result<()> {
        let snapshot = self.snapshot(commit);
        if snapshot.exists() {
            return files.iter().try_for_each(|file| self.link(&snapshot, file));
        }
        let staging = self.repo.join(format!("{TEMP_PREFIX}{commit}"));
        if staging.exists() {
            fs::remove_dir_all(&staging).map_err(|e| Error::io(&staging, e))?;
        }
        fs::create_dir(&staging).map_err(|e| Error::io(&staging, e))?;
        files.iter().try_for_each(|file| self.link(&staging, file))?;
        match fs::rename(&staging, &snapshot) {
            Ok(()) => Ok(()),
            // Another program has made it meanwhile.
            Err(e) if snapshot.exists() => {
                fs::remove_dir_all(&staging).map_err(|_| Error::io(&staging, e))?;
                files.iter().try_for_each(|file| self.link(&snapshot, file))
            }
            Err(e) => Err(Error::io(&snapshot, e)),
        }
    }

    /// Writes down which commit `revision` is, unless it is the commit itself.
    pub fn set_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit_of(revision)?.as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.repo.join("refs").join(revision);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|e| Error::io(directory, e))?;
        }
        self.put(&path, commit.as_bytes())
    }

    fn link(&self, snapshot: &Path, file: &RemoteFile) -> Result<()> {
        let (path, target) = (snapshot.join(&file.path), target(file));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|e| Error::io(directory, e))?;
        }
        match symlink(&target, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match fs::read_link(&path) {
                Ok(to) if to == target => Ok(()),
                _ => replace_link(&path, &target, &self.repo),
            },
            made => made.map_err(|e| Error::io(&path, e)),
        }
    }

    /// Puts a small file into its place. What is not whole yet lies where huggingface_hub does not
    /// look: it takes whatever is below `refs` for a ref.
    fn put(&self, path: &Path, content: &[u8]) -> Result<()> {
        atomic_write(path, &self.repo, |file| {
            file.write_all(content).map_err(|e| Error::io(path, e))
        })
    }

    /// Removes what an earlier run left of `file`, which is whole by now.
    pub fn clear(&self, file: &RemoteFile) -> Result<()> {
        part::clear(&self.part(file))
    }
}

/// From the snapshot to the blob of `file`.
fn target(file: &RemoteFile) -> PathBuf {
    let up = "../".repeat(2 + file.path.matches('/').count());
    PathBuf::from(format!("{up}blobs/{}", file.etag()))
}
