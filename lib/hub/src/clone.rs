//! Cloning: a revision of a model as plain files in a directory of the user's own.
//!
//! What the cache has is copied, copy-on-write where the file system can; the rest comes from the
//! Hub. Every file is verified before it gets its name, those of the cache too, and the directory
//! gets its own when all are there. A run that is cut short leaves a directory beside the place,
//! which the next one goes on with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mlxk_core::digest::{self, Digest};
use mlxk_core::store::copy;
use mlxk_core::store::lock::{self, MODE};
use mlxk_core::workspace::sentinel;
use mlxk_core::workspace::staging::Staging;
use mlxk_core::{Error, Found, Kind, Result};

use crate::cache::Cache;
use crate::client::Hub;
use crate::event::{Event, Listener};
use crate::listing::{Listing, RemoteFile};
use crate::part;
use crate::pull::{Choice, none_chosen};
use crate::transfer::{self, Job, check_room, is_there};
use crate::xet::Storage;

/// What lies in a staging directory beside the model, until that is whole.
const WORK: &str = ".mlxk";

/// What is locked there by whoever fills the directory.
const LOCK: &str = "lock";

/// A clone to make.
#[derive(Debug)]
pub struct Plan {
    /// The model.
    pub id: String,
    /// The files of the revision that belong into a workspace.
    pub listing: Listing,
    cache: Cache,
}

impl Plan {
    /// The plan for what the Hub lists, as far as it is the user's `choice`; `hub` is the directory
    /// of the cache.
    ///
    /// # Errors
    /// `Validation` if nothing is chosen.
    pub fn of_listing(id: &str, mut listing: Listing, choice: &Choice, hub: &Path) -> Result<Plan> {
        let count = listing.files.len();
        listing.files.retain(|file| !is_ours(&file.path) && choice.takes(&file.path));
        match listing.files.is_empty() {
            true => Err(none_chosen(id, count)),
            false => Ok(Plan { id: id.to_owned(), listing, cache: Cache::new(hub, id) }),
        }
    }

    /// The plan for a model that is in the cache `hub`, without asking the Hub; the rest is as in
    /// [`Plan::of_listing`].
    pub fn of_cached(found: &Found, choice: &Choice, hub: &Path) -> Result<Plan> {
        let Some(commit) = &found.revision else {
            let message = "the cache has no whole revision of it";
            return Err(Error::new(Kind::ModelNotFound, &found.name, message));
        };
        let mut files = Vec::new();
        walk(&found.path, "", &mut files)?;
        files.sort_by(|a: &RemoteFile, b| a.path.cmp(&b.path));
        let listing = Listing { commit: commit.clone(), files };
        Plan::of_listing(&found.name, listing, choice, hub)
    }

    /// The bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.listing.files.iter().map(|file| file.size).sum()
    }

    /// The files that would have to come from the Hub.
    pub fn missing(&self) -> impl Iterator<Item = &RemoteFile> {
        self.listing.files.iter().filter(|file| !is_there(&self.cache.blob(file), file))
    }

    /// Asks for one of the missing files, if the model is `gated`: its list everybody may see.
    pub fn check_access(&self, hub: &Hub, gated: bool, told: Listener) -> Result<()> {
        match self.missing().next().filter(|_| gated) {
            Some(file) => file.check_access(hub, &self.id, &self.listing.commit, told),
            None => Ok(()),
        }
    }

    /// Fills `staging`; without a `hub`, from the cache alone. `check` can end it.
    pub fn fill(
        &self,
        staging: &Staging,
        hub: Option<&Hub>,
        check: &(dyn Fn() -> Result<()> + Sync),
        told: Listener,
    ) -> Result<()> {
        let directory = staging.path();
        let work = directory.join(WORK);
        let waiting = || told(Event::Locked { path: "" });
        let _lock = lock::take(&work.join(LOCK), MODE, check, &waiting)?;
        forsake(staging)?;
        let absent = |file: &&RemoteFile| !is_there(&directory.join(&file.path), file);
        let files: Vec<_> = self.listing.files.iter().filter(absent).collect();
        let mut present = 0;
        for file in &files {
            present += part::present(&part_of(&work, file), file.size, file.digest()?);
        }
        let bytes = files.iter().map(|file| file.size).sum::<u64>();
        let room = bytes.saturating_sub(present + self.free(&files, &work));
        check_room(directory, room)?;
        told(Event::Plan { files: files.len(), bytes, present });
        let mut jobs = Vec::new();
        for file in files {
            check()?;
            let place = directory.join(&file.path);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
            }
            match (self.copy(file, &work, &place, check, told)?, hub) {
                (true, _) => {}
                (false, Some(hub)) => jobs.push(self.job(hub, file, &work, place)),
                (false, None) => {
                    let message = "the cache does not have it whole, and the Hub may not be asked";
                    return Err(Error::new(Kind::DownloadFailed, self.about(file), message));
                }
            }
        }
        if let Some(hub) = hub {
            jobs.sort_by_key(|job| job.file.size); // what is small fails early, if it does
            let storage = Storage::of(hub, &self.id, &self.listing.commit);
            transfer::fetch(hub, &jobs, storage.as_ref(), told)?;
        }
        Ok(())
    }

    /// Makes the filled `staging` a managed workspace, of which `source` is what the user typed.
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

    /// Copies a file from the cache. False if that does not have it, or not with the right content.
    fn copy(
        &self,
        file: &RemoteFile,
        work: &Path,
        place: &Path,
        check: &(dyn Fn() -> Result<()> + Sync),
        told: Listener,
    ) -> Result<bool> {
        let blob = self.cache.blob(file);
        if !is_there(&blob, file) {
            return Ok(false);
        }
        let path = &*file.path;
        told(Event::Begin { path, size: file.size, present: 0 });
        let copy = work.join("copy");
        part::clear(&copy)?;
        let expected = file.digest()?;
        let found = copy::hashed(&blob, &copy, expected.hasher(file.size), |bytes| {
            told(Event::Moved { path, bytes });
            check()
        })?;
        if found != expected {
            told(Event::Lost { path, bytes: file.size });
            return Ok(false);
        }
        make_writable(&copy)?;
        fs::rename(&copy, place).map_err(|e| Error::io(place, e))?;
        told(Event::Done { path });
        Ok(true)
    }

    /// The bytes of those of `files` that are shared with the cache rather than copied.
    fn free(&self, files: &[&RemoteFile], work: &Path) -> u64 {
        let cached = || files.iter().filter(|file| is_there(&self.cache.blob(file), file));
        let largest = cached().max_by_key(|file| file.size);
        match largest.is_some_and(|file| copy::is_free(&self.cache.blob(file), work)) {
            true => cached().map(|file| file.size).sum(),
            false => 0,
        }
    }

    /// What whole files of the clone hold, by path.
    fn digests(&self) -> Result<BTreeMap<String, Digest>> {
        let files = self.listing.files.iter();
        files.map(|file| Ok((file.path.clone(), file.digest()?))).collect()
    }

    fn about(&self, file: &RemoteFile) -> String {
        format!("{}: {}", self.id, file.path)
    }

    fn job<'a>(&'a self, hub: &Hub, file: &'a RemoteFile, work: &Path, place: PathBuf) -> Job<'a> {
        Job {
            model: &self.id,
            file,
            url: file.url(hub, &self.id, &self.listing.commit),
            part: part_of(work, file),
            place,
            lock: None,
            replace: false,
        }
    }
}

/// Removes what earlier runs have left of the same workspace out of other revisions, but for one
/// that is being filled right now.
fn forsake(staging: &Staging) -> Result<()> {
    for old in staging.siblings()? {
        let work = old.join(WORK);
        let free = !work.is_dir() || lock::try_take(&work.join(LOCK), MODE)?.is_some();
        if free {
            fs::remove_dir_all(&old).map_err(|e| Error::io(&old, e))?;
        }
    }
    Ok(())
}

/// Files of one content may have several names: each has its own part.
fn part_of(work: &Path, file: &RemoteFile) -> PathBuf {
    let mut hasher = digest::Hasher::sha256();
    hasher.update(file.path.as_bytes());
    work.join(format!("{}.{:.16}.incomplete", file.etag(), hasher.finish().to_string()))
}

/// What a workspace has for itself: a copy of another one's would be wrong in this.
fn is_ours(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    [sentinel::NAME, ".hf_cache", WORK].contains(&first)
}

/// The blobs of a store are for reading; a workspace is for editing.
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

/// The files of a snapshot, known by the names of their blobs.
fn walk(directory: &Path, prefix: &str, files: &mut Vec<RemoteFile>) -> Result<()> {
    let at = |e| Error::io(directory, e);
    for entry in fs::read_dir(directory).map_err(at)? {
        let disk = entry.map_err(at)?.path();
        let name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if fs::symlink_metadata(&disk).map_err(|e| Error::io(&disk, e))?.is_dir() {
            walk(&disk, &format!("{path}/"), files)?;
            continue;
        }
        let blob = fs::read_link(&disk).map_err(|_| unknown(&disk))?;
        let etag = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let size = fs::metadata(&disk).map_err(|e| Error::io(&disk, e))?.len();
        let (blob_id, sha256) = match etag.parse() {
            Ok(Digest::Git(_)) => (etag, None),
            Ok(Digest::Sha256(_)) => (String::new(), Some(etag)),
            Err(_) => return Err(unknown(&disk)),
        };
        files.push(RemoteFile { path, size, blob_id, sha256, xet_hash: None });
    }
    Ok(())
}

fn unknown(path: &Path) -> Error {
    let message = "not a link to a blob of the cache: what it should be is not known";
    Error::new(Kind::InvalidModel, path.display().to_string(), message)
}
