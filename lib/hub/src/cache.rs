//! One model's directory in the Hugging Face cache, laid out exactly as huggingface_hub lays it
//! out.
//!
//! mlxk and huggingface_hub may work on the same cache at the same time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mlxk_core::store::atomic_write::{TEMP_PREFIX, atomic_write};
use mlxk_core::store::cache::encode;
use mlxk_core::store::shared::replace_link;
use mlxk_core::store::tree::Tree;
use mlxk_core::{Error, Result, regular_file};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::PrettyFormatter;

use crate::listing::{Listing, RemoteFile};
use crate::partial;
use crate::transfer::is_present;

/// Maximum size of a ref in bytes.
const MAX_REF: u64 = 4096;

/// Content of `CACHEDIR.TAG`, which excludes the directory from backups;
/// <https://bford.info/cachedir/>.
const TAG: &str = "\
Signature: 8a477f597d28d172789f06886806bc55
# A cache of models from the Hugging Face Hub: what is here can be fetched again.
";

/// Directory of one model in the cache, which may not exist yet.
#[derive(Clone, Debug)]
pub struct CachedRepo {
    hub: PathBuf,
    repo: PathBuf,
}

impl CachedRepo {
    /// Directory of the model `id` in the cache directory `hub`.
    pub fn new(hub: &Path, id: &str) -> CachedRepo {
        CachedRepo { hub: hub.to_owned(), repo: hub.join(encode(id)) }
    }

    /// Cache directory that holds all models.
    pub fn hub(&self) -> &Path {
        &self.hub
    }

    /// Path of the blob with the content of `file`.
    pub fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.repo.join("blobs").join(file.etag())
    }

    /// Path of the partial download of `file`.
    pub fn partial(&self, file: &RemoteFile) -> PathBuf {
        self.repo.join("blobs").join(format!("{}.mlxk.incomplete", file.etag()))
    }

    /// Path of the lock file held by a program that downloads `file`.
    pub fn blob_lock(&self, file: &RemoteFile) -> PathBuf {
        self.lock(file.etag())
    }

    /// Path of the lock file held by a program that writes the snapshot of `commit`.
    pub fn snapshot_lock(&self, commit: &str) -> PathBuf {
        self.lock(commit)
    }

    fn lock(&self, name: &str) -> PathBuf {
        let directory = self.hub.join(".locks").join(self.repo.file_name().unwrap_or_default());
        directory.join(format!("{name}.lock"))
    }

    /// Directory with the files of `commit`.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    /// Commit that the branch or tag `revision` had at its last download.
    pub fn ref_commit(&self, revision: &str) -> Result<Option<String>> {
        let path = self.repo.join("refs").join(revision);
        match regular_file::read_small(&path, MAX_REF) {
            Ok(commit) => Ok(Some(String::from_utf8_lossy(&commit).trim().to_owned())),
            Err(e) if regular_file::is_unfit(&e) => Ok(None),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(e) => Err(Error::io(&path, e)),
        }
    }

    /// Creates the directories, and records the file list of the revision in `trees`.
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
        self.write_file(&path, &text)
    }

    /// File with the content of `file`: its blob, or else the file in the snapshot of `commit`, which
    /// is no link in a cache that was copied, or made, without links.
    pub fn content(&self, commit: &str, file: &RemoteFile) -> Option<PathBuf> {
        let places = [self.blob(file), self.snapshot(commit).join(&file.path)];
        places.into_iter().find(|path| is_present(path, file))
    }

    /// True if the snapshot of `commit` has `file`: as a link to its blob, or itself.
    pub fn is_linked(&self, commit: &str, file: &RemoteFile) -> bool {
        let path = self.snapshot(commit).join(&file.path);
        match fs::read_link(&path) {
            Ok(to) if to == link_target(file) => true,
            Ok(_) => is_present(&path, file) && !is_present(&self.blob(file), file),
            Err(_) => is_present(&path, file),
        }
    }

    /// Links `files` into the snapshot of `commit`; their blobs must exist and the snapshot be
    /// locked.
    ///
    /// A new snapshot appears with all of its files at once.
    pub fn link_all(&self, commit: &str, files: &[&RemoteFile]) -> Result<()> {
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
            // Another program has created it meanwhile.
            Err(e) if snapshot.exists() => {
                fs::remove_dir_all(&staging).map_err(|_| Error::io(&staging, e))?;
                files.iter().try_for_each(|file| self.link(&snapshot, file))
            }
            Err(e) => Err(Error::io(&snapshot, e)),
        }
    }

    /// Sets the ref `revision` to `commit`; a revision that is a commit itself gets no ref.
    pub fn set_ref(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.ref_commit(revision)?.as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.repo.join("refs").join(revision);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|e| Error::io(directory, e))?;
        }
        self.write_file(&path, commit.as_bytes())
    }

    fn link(&self, snapshot: &Path, file: &RemoteFile) -> Result<()> {
        let (path, target) = (snapshot.join(&file.path), link_target(file));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|e| Error::io(directory, e))?;
        }
        match symlink(&target, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match fs::read_link(&path) {
                Ok(to) if to == target => Ok(()),
                _ => replace_link(&path, &target, &self.repo),
            },
            linked => linked.map_err(|e| Error::io(&path, e)),
        }
    }

    /// Writes a small file atomically. Its temporary file lies in the model's directory, because
    /// huggingface_hub takes every file below `refs` for a ref.
    fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        atomic_write(path, &self.repo, |file| {
            file.write_all(content).map_err(|e| Error::io(path, e))
        })
    }

    /// Removes the partial download of `file`, whose blob is complete.
    pub fn clear_partial(&self, file: &RemoteFile) -> Result<()> {
        partial::clear(&self.partial(file))
    }
}

/// Relative target of the link from a snapshot to the blob of `file`.
fn link_target(file: &RemoteFile) -> PathBuf {
    let up = "../".repeat(2 + file.path.matches('/').count());
    PathBuf::from(format!("{up}blobs/{}", file.etag()))
}
