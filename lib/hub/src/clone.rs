//! Cloning: a revision of a model as plain files in a directory of the user.
//!
//! Files in the cache are copied, copy-on-write where the file system supports it; the rest is
//! downloaded. Every file is verified before it gets its name, files from the cache too, and the
//! directory gets its name once it is complete. A run that is cut short leaves a staging directory
//! beside the target, and the next run continues in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mlxk_core::digest::{self, Digest};
use mlxk_core::store::copy;
use mlxk_core::store::lock::{self, MODE};
use mlxk_core::workspace::sentinel;
use mlxk_core::workspace::staging::Staging;
use mlxk_core::{Error, Found, Kind, Result};

use crate::cache::CachedRepo;
use crate::client::Hub;
use crate::listing::{Listing, RemoteFile};
use crate::partial;
use crate::pull::{FileFilter, nothing_selected};
use crate::safe_path;
use crate::transfer::{self, Job, check_disk_space, is_present};
use crate::xet::Storage;
use mlxk_core::progress::{Listener, Progress};

/// Working directory inside a staging directory, until the clone is complete.
const WORK: &str = ".mlxk";

/// Lock file in [`WORK`], held by the program that fills the staging directory.
const LOCK: &str = "lock";

/// Plan of a clone: the files of one revision, and the cache they may be copied from.
#[derive(Debug)]
pub struct ClonePlan {
    /// Model id, `org/name`.
    pub id: String,
    /// Selected files of the revision, without files that belong to a workspace itself.
    pub listing: Listing,
    cache: CachedRepo,
}

impl ClonePlan {
    /// Plans a clone of the files of `listing` that `filter` selects; `hub` is the cache directory.
    ///
    /// # Errors
    /// `Validation` if no file is selected.
    pub fn of_listing(
        id: &str,
        mut listing: Listing,
        filter: &FileFilter,
        hub: &Path,
    ) -> Result<ClonePlan> {
        let count = listing.files.len();
        listing.files.retain(|file| !is_reserved(&file.path) && filter.selects(&file.path));
        match listing.files.is_empty() {
            true => Err(nothing_selected(id, count)),
            false => Ok(ClonePlan { id: id.to_owned(), listing, cache: CachedRepo::new(hub, id) }),
        }
    }

    /// Plans a clone of a cached model without network access; `hub` is the cache directory.
    ///
    /// # Errors
    /// `ModelNotFound` if the cache has no complete revision, `InvalidModel` if a link does not lead
    /// to a blob, `Validation` if no file is selected or a path is unsafe.
    pub fn of_cached(found: &Found, filter: &FileFilter, hub: &Path) -> Result<ClonePlan> {
        let Some(commit) = &found.revision else {
            let message = "the cache has no whole revision of it";
            return Err(Error::new(Kind::ModelNotFound, &found.name, message));
        };
        let mut files = Vec::new();
        list_snapshot(&found.path, "", &mut files)?;
        files.sort_by(|a: &RemoteFile, b| a.path.cmp(&b.path));
        safe_path::check_paths(files.iter().map(|file| &*file.path))?;
        let listing = Listing { commit: commit.clone(), files };
        ClonePlan::of_listing(&found.name, listing, filter, hub)
    }

    /// Total size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.listing.files.iter().map(|file| file.size).sum()
    }

    /// Files that are not in the cache and have to be downloaded.
    pub fn missing(&self) -> impl Iterator<Item = &RemoteFile> {
        self.listing.files.iter().filter(|file| self.cached(file).is_none())
    }

    /// File in the cache with the content of `file`.
    fn cached(&self, file: &RemoteFile) -> Option<PathBuf> {
        self.cache.content(&self.listing.commit, file)
    }

    /// Checks access to a `gated` model by a request for one missing file, since its file list is
    /// public.
    pub fn check_access(&self, hub: &Hub, gated: bool, progress: Listener) -> Result<()> {
        match self.missing().next().filter(|_| gated) {
            Some(file) => file.check_access(hub, &self.id, &self.listing.commit, progress),
            None => Ok(()),
        }
    }

    /// Fills `staging` with all files, from the cache alone if `hub` is `None`; an error of `check`
    /// ends the work.
    ///
    /// # Errors
    /// If the disk has not enough space, a file cannot be downloaded or verified, or `check` fails.
    pub fn fill(
        &self,
        staging: &Staging,
        hub: Option<&Hub>,
        check: &(dyn Fn() -> Result<()> + Sync),
        progress: Listener,
    ) -> Result<()> {
        let directory = staging.path();
        let work = directory.join(WORK);
        let waiting = || progress(Progress::Locked { path: "" });
        let _lock = lock::take(&work.join(LOCK), MODE, check, &waiting)?;
        remove_other_revisions(staging)?;
        let absent = |file: &&RemoteFile| !is_present(&directory.join(&file.path), file);
        let files: Vec<_> = self.listing.files.iter().filter(absent).collect();
        self.announce(&files, directory, progress)?;
        let mut jobs = Vec::new();
        for file in files {
            check()?;
            let destination = directory.join(&file.path);
            if let Some(parent) = destination.parent() {
                fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
            }
            match (self.copy(file, &work, &destination, check, progress)?, hub) {
                (true, _) => {}
                (false, Some(hub)) => jobs.push(self.job(hub, file, &work, destination)),
                (false, None) => {
                    let message = "the cache does not have it whole, and the Hub may not be asked";
                    return Err(Error::new(Kind::DownloadFailed, self.subject(file), message));
                }
            }
        }
        match hub {
            Some(hub) => self.download(hub, jobs, progress),
            None => Ok(()),
        }
    }

    /// Checks that the disk has space for `files` in `directory`, and reports the amount of work.
    fn announce(&self, files: &[&RemoteFile], directory: &Path, progress: Listener) -> Result<()> {
        let work = directory.join(WORK);
        let mut present = 0;
        for file in files {
            present += partial::present(&partial_path(&work, file), file.size, file.digest()?);
        }
        let bytes = files.iter().map(|file| file.size).sum::<u64>();
        let needed = bytes.saturating_sub(present + self.shared_bytes(files, &work));
        check_disk_space(directory, needed)?;
        progress(Progress::Plan { files: files.len(), bytes, present });
        Ok(())
    }

    fn download(&self, hub: &Hub, mut jobs: Vec<Job>, progress: Listener) -> Result<()> {
        jobs.sort_by_key(|job| job.file.size); // small files first: an error shows early
        let storage = Storage::of(hub, &self.id, &self.listing.commit);
        transfer::fetch(hub, &jobs, storage.as_ref(), progress)
    }

    /// Publishes the filled `staging` as a managed workspace; `source` is the name the user typed.
    pub fn publish(&self, staging: Staging, source: &str) -> Result<PathBuf> {
        let work = staging.path().join(WORK);
        fs::remove_dir_all(&work).map_err(|e| Error::io(&work, e))?;
        let made = sentinel::Made {
            operation: "clone",
            source,
            revision: Some(&self.listing.commit),
            ..Default::default()
        };
        let mut sentinel = sentinel::manage(staging.path(), &made)?;
        sentinel.set_digests(&self.digests()?);
        sentinel.write(staging.path())?;
        staging.publish()
    }

    /// Copies a file from the cache. Returns false if the cache does not have it, or other content.
    fn copy(
        &self,
        file: &RemoteFile,
        work: &Path,
        destination: &Path,
        check: &(dyn Fn() -> Result<()> + Sync),
        progress: Listener,
    ) -> Result<bool> {
        let Some(cached) = self.cached(file) else {
            return Ok(false);
        };
        let path = &*file.path;
        progress(Progress::Begin { path, size: file.size, present: 0 });
        let copy = work.join("copy");
        partial::clear(&copy)?;
        let expected = file.digest()?;
        let found = copy::hashed(&cached, &copy, expected.hasher(file.size), |bytes| {
            progress(Progress::Moved { path, bytes });
            check()
        })?;
        if found != expected {
            progress(Progress::Lost { path, bytes: file.size });
            return Ok(false);
        }
        make_writable(&copy)?;
        fs::rename(&copy, destination).map_err(|e| Error::io(destination, e))?;
        progress(Progress::Done { path });
        Ok(true)
    }

    /// Bytes of those `files` that copy-on-write shares with the cache, so that they need no space.
    fn shared_bytes(&self, files: &[&RemoteFile], work: &Path) -> u64 {
        let cached = || files.iter().filter_map(|file| Some((file.size, self.cached(file)?)));
        let largest = cached().max_by_key(|(size, _)| *size);
        match largest.is_some_and(|(_, path)| copy::is_free(&path, work)) {
            true => cached().map(|(size, _)| size).sum(),
            false => 0,
        }
    }

    /// Digests of all files, by path.
    fn digests(&self) -> Result<BTreeMap<String, Digest>> {
        let files = self.listing.files.iter();
        files.map(|file| Ok((file.path.clone(), file.digest()?))).collect()
    }

    fn subject(&self, file: &RemoteFile) -> String {
        format!("{}: {}", self.id, file.path)
    }

    fn job<'a>(
        &'a self,
        hub: &Hub,
        file: &'a RemoteFile,
        work: &Path,
        destination: PathBuf,
    ) -> Job<'a> {
        Job {
            model: &self.id,
            file,
            url: file.url(hub, &self.id, &self.listing.commit),
            partial: partial_path(work, file),
            destination,
            lock: None,
            replace: false,
        }
    }
}

/// Removes staging directories of the same workspace for other revisions, except those in use.
fn remove_other_revisions(staging: &Staging) -> Result<()> {
    for old in staging.siblings()? {
        let work = old.join(WORK);
        let unused = !work.is_dir() || lock::try_take(&work.join(LOCK), MODE)?.is_some();
        if unused {
            fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
        }
    }
    Ok(())
}

/// Path of the partial download of `file`; it depends on the file's path, because two files of one
/// content must not share it.
fn partial_path(work: &Path, file: &RemoteFile) -> PathBuf {
    let mut hasher = digest::Hasher::sha256();
    hasher.update(file.path.as_bytes());
    work.join(format!("{}.{:.16}.incomplete", file.etag(), hasher.finish().to_string()))
}

/// True for files that describe a workspace itself and must not come from another one.
fn is_reserved(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    // In another case it is the same file to some file systems.
    [sentinel::NAME, ".hf_cache", WORK].iter().any(|name| name.eq_ignore_ascii_case(first))
}

/// Makes a copied blob writable for its owner: blobs are read-only, workspaces are for editing.
fn make_writable(path: &Path) -> Result<()> {
    let change = || {
        let file = File::open(path)?;
        let mut permissions = file.metadata()?.permissions();
        let mode = std::os::unix::fs::PermissionsExt::mode(&permissions);
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, mode | 0o200);
        file.set_permissions(permissions)?;
        file.sync_data()
    };
    change().map_err(|e| Error::io(path, e))
}

/// Collects the files of a snapshot directory, with the digests that their blobs are named by.
fn list_snapshot(directory: &Path, prefix: &str, files: &mut Vec<RemoteFile>) -> Result<()> {
    let at = |e| Error::io(directory, e);
    for entry in fs::read_dir(directory).map_err(at)? {
        let link = entry.map_err(at)?.path();
        let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if fs::symlink_metadata(&link).map_err(|e| Error::io(&link, e))?.is_dir() {
            list_snapshot(&link, &format!("{path}/"), files)?;
            continue;
        }
        let data = fs::metadata(&link).map_err(|e| Error::io(&link, e))?;
        if !data.is_file() {
            return Err(not_a_blob(&link));
        }
        let size = data.len();
        let etag = match fs::read_link(&link) {
            Ok(blob) => blob.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            // In a cache without links, the content itself has to say what its digest is.
            Err(_) => digest::file(&link, digest::Hasher::sha256(), |_| Ok(()))?.to_string(),
        };
        let (blob_id, sha256) = match etag.parse() {
            Ok(Digest::Git(_)) => (etag, None),
            Ok(Digest::Sha256(_)) => (String::new(), Some(etag)),
            Err(_) => return Err(not_a_blob(&link)),
        };
        files.push(RemoteFile { path, size, blob_id, sha256, xet_hash: None });
    }
    Ok(())
}

fn not_a_blob(path: &Path) -> Error {
    let message = "neither a file nor a link to a blob of the cache";
    Error::new(Kind::InvalidModel, path.display().to_string(), message)
}
