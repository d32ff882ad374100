//! Pulling: a revision of a model from the Hub into the cache.
//!
//! A plan is made first and changes nothing. Its execution downloads the blobs, each verified
//! before it gets its name; then the snapshot appears, and last the ref that makes it the current
//! one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxk_core::store::lock::{self, Lock, MODE};
use mlxk_core::store::shared;
use mlxk_core::{Error, Kind, Places, Result, fnmatch};

use crate::cache::CachedRepo;
use crate::client::Hub;
use crate::listing::{self, Listing, RemoteFile};
use crate::partial;
use crate::transfer::{self, Job, check_disk_space, is_present};
use crate::xet::Storage;
use mlxk_core::progress::{Listener, Progress};

/// Default revision.
pub const MAIN: &str = "main";

/// Options of a pull: the model, its revision and which of its files.
#[derive(Clone, Copy, Debug)]
pub struct PullOptions<'a> {
    /// Model id, `org/name`.
    pub id: &'a str,
    /// Branch, tag or commit.
    pub revision: &'a str,
    /// Selection of files.
    pub filter: &'a FileFilter,
    /// Paths of files whose cached content is damaged; if not empty, only these are fetched.
    pub bad: &'a [String],
}

/// Selection of files by patterns: those that match one of `include` (or all), and none of
/// `exclude`.
///
/// Patterns are those of `fnmatch` on the whole path, where `*` matches slashes too; a directory
/// name with a trailing slash matches everything below it.
#[derive(Clone, Debug, Default)]
pub struct FileFilter {
    /// Patterns of files to include; empty includes all.
    pub include: Vec<String>,
    /// Patterns of files to exclude; empty excludes none.
    pub exclude: Vec<String>,
}

impl FileFilter {
    /// True if the file `path` is selected.
    pub fn selects(&self, path: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Files that were downloaded.
#[derive(Debug)]
pub struct Fetched<'a> {
    /// Downloaded files; of files with the same content, one.
    pub files: Vec<&'a RemoteFile>,
    /// Bytes downloaded, without those of partial downloads that were present before.
    pub bytes: u64,
}

/// Plan of a pull: the files of a revision, and which of them are missing.
#[derive(Debug)]
pub struct PullPlan {
    /// Model id, `org/name`.
    pub id: String,
    /// Requested revision: branch, tag or commit.
    pub revision: String,
    /// All files of the revision.
    pub listing: Listing,
    /// Indices of the selected files.
    selected: Vec<usize>,
    /// Indices of the files to download; of files with the same content, one.
    missing: Vec<usize>,
    /// Bytes of the missing files that partial downloads already have.
    pub present: u64,
    replace: bool,
    up_to_date: bool,
    cache: CachedRepo,
}

impl PullPlan {
    /// Compares the Hub's file list with the cache; creates nothing.
    ///
    /// # Errors
    /// Errors of [`listing::info`] and [`listing::files`], and `Validation` if no file is selected.
    pub fn new(
        hub: &Hub,
        options: PullOptions,
        places: &Places,
        progress: Listener,
    ) -> Result<PullPlan> {
        let info = listing::info(hub, options.id, options.revision, progress)?;
        let listing = listing::files(hub, options.id, &info.commit, progress)?;
        let cache = CachedRepo::new(&places.hub, options.id);
        let selected = select(&options, &listing)?;
        let mut contents = BTreeSet::new();
        let files = &listing.files;
        let missing: Vec<usize> = (selected.iter().copied())
            .filter(|i| {
                !options.bad.is_empty() || cache.content(&info.commit, &files[*i]).is_none()
            })
            .filter(|i| contents.insert(files[*i].etag()))
            .collect();
        if let (true, Some(first)) = (info.gated, missing.first()) {
            files[*first].check_access(hub, options.id, &info.commit, progress)?;
        }
        let mut present = 0;
        for i in &missing {
            present +=
                partial::present(&cache.partial(&files[*i]), files[*i].size, files[*i].digest()?);
        }
        let linked = selected.iter().all(|i| cache.is_linked(&info.commit, &files[*i]));
        let current = options.revision == info.commit
            || cache.ref_commit(options.revision)?.is_some_and(|commit| commit == info.commit);
        Ok(PullPlan {
            id: options.id.to_owned(),
            revision: options.revision.to_owned(),
            present,
            replace: !options.bad.is_empty(),
            up_to_date: missing.is_empty() && linked && current,
            selected,
            missing,
            listing,
            cache,
        })
    }

    /// Files to download; of files with the same content, one.
    pub fn missing(&self) -> impl Iterator<Item = &RemoteFile> {
        self.missing.iter().map(|i| &self.listing.files[*i])
    }

    /// Selected files of the revision.
    pub fn selected(&self) -> impl Iterator<Item = &RemoteFile> {
        self.selected.iter().map(|i| &self.listing.files[*i])
    }

    /// Bytes to download.
    pub fn bytes(&self) -> u64 {
        self.missing().map(|file| file.size).sum::<u64>() - self.present
    }

    /// True if all selected files are in the cache and the ref is current.
    pub fn is_up_to_date(&self) -> bool {
        self.up_to_date
    }

    /// Downloads the missing files and updates the cache; returns what was downloaded.
    ///
    /// # Errors
    /// If the disk has not enough space, a download or its verification fails, another program
    /// removes a blob meanwhile, or the user cancels.
    pub fn execute(&self, hub: &Hub, progress: Listener) -> Result<Fetched<'_>> {
        let (cache, commit) = (&self.cache, &self.listing.commit);
        let mut bytes = 0;
        for file in self.missing() {
            bytes += if self.is_shared(hub, file)? { 0 } else { self.missing_bytes(file)? };
        }
        check_disk_space(cache.hub(), bytes)?;
        cache.prepare(&self.listing)?;
        let bytes = self.missing().map(|file| file.size).sum();
        progress(Progress::Plan { files: self.missing.len(), bytes, present: self.present });
        let mut fetched = Fetched { files: Vec::new(), bytes: 0 };
        for file in self.missing() {
            if !self.adopt(hub, file, progress)? {
                fetched.bytes += self.missing_bytes(file)?;
                fetched.files.push(file);
            }
        }
        check_disk_space(cache.hub(), fetched.bytes)?;
        let mut jobs: Vec<_> = fetched.files.iter().map(|file| self.job(hub, file)).collect();
        jobs.sort_by_key(|job| job.file.size); // small files first: an error shows early
        let storage = Storage::of(hub, &self.id, commit);
        transfer::fetch(hub, &jobs, storage.as_ref(), progress)?;
        jobs.iter().try_for_each(|job| self.share(hub, job.file, progress))?;
        self.publish(hub, progress)?;
        Ok(fetched)
    }

    /// Links all selected blobs into the snapshot, then sets the ref.
    fn publish(&self, hub: &Hub, progress: Listener) -> Result<()> {
        let (cache, commit) = (&self.cache, &self.listing.commit);
        let waiting = || progress(Progress::Locked { path: "" });
        let _lock = lock::take(&cache.snapshot_lock(commit), MODE, &|| hub.check(), &waiting)?;
        for file in self.selected() {
            cache.clear_partial(file)?;
            if cache.content(commit, file).is_none() {
                let subject = format!("{}: {}", self.id, file.path);
                let message = "another program has removed it meanwhile";
                return Err(Error::new(Kind::DownloadFailed, subject, message).hint("try again"));
            }
        }
        let unlinked =
            self.selected().filter(|file| self.replace || !cache.is_linked(commit, file));
        cache.link_all(commit, &unlinked.collect::<Vec<_>>())?;
        cache.set_ref(&self.revision, commit)
    }

    /// Bytes of a file that its partial download lacks.
    fn missing_bytes(&self, file: &RemoteFile) -> Result<u64> {
        Ok(file.size - partial::present(&self.cache.partial(file), file.size, file.digest()?))
    }

    fn job<'a>(&'a self, hub: &Hub, file: &'a RemoteFile) -> Job<'a> {
        Job {
            model: &self.id,
            file,
            url: file.url(hub, &self.id, &self.listing.commit),
            partial: self.cache.partial(file),
            destination: self.cache.blob(file),
            lock: Some(self.cache.blob_lock(file)),
            replace: self.replace,
        }
    }

    /// True if the shared blob store seems to have the file.
    fn is_shared(&self, hub: &Hub, file: &RemoteFile) -> Result<bool> {
        match shared_hash(hub, file).filter(|_| !self.replace) {
            Some(hash) => shared::offers(hash, file.size, self.cache.hub()),
            None => Ok(false),
        }
    }

    /// Links the file from the shared blob store; false if the store does not have it.
    fn adopt(&self, hub: &Hub, file: &RemoteFile, progress: Listener) -> Result<bool> {
        let (path, size) = (&*file.path, file.size);
        let Some(hash) = shared_hash(hub, file).filter(|_| !self.replace) else {
            return Ok(false);
        };
        if !shared::offers(hash, size, self.cache.hub())? {
            return Ok(false);
        }
        let _lock = self.lock(hub, file, progress)?;
        progress(Progress::Begin { path, size, present: 0 });
        let read = AtomicU64::new(0);
        let on_bytes = |bytes| {
            read.fetch_add(bytes, Ordering::Relaxed);
            progress(Progress::Moved { path, bytes });
            hub.check()
        };
        let blob = self.cache.blob(file);
        let adopted =
            shared::adopt(&blob, hash, size, file.digest()?, self.cache.hub(), &on_bytes)?;
        progress(match adopted {
            true => Progress::Done { path },
            false => Progress::Lost { path, bytes: read.into_inner() },
        });
        Ok(adopted)
    }

    /// Publishes a downloaded file in the shared blob store, if the cache has one.
    fn share(&self, hub: &Hub, file: &RemoteFile, progress: Listener) -> Result<()> {
        let Some(hash) = shared_hash(hub, file) else {
            return Ok(());
        };
        let _lock = self.lock(hub, file, progress)?;
        let blob = self.cache.blob(file);
        if is_present(&blob, file) {
            shared::publish(&blob, hash, self.cache.hub(), &|_| hub.check())?;
        }
        Ok(())
    }

    fn lock(&self, hub: &Hub, file: &RemoteFile, progress: Listener) -> Result<Lock> {
        let waiting = || progress(Progress::Locked { path: &file.path });
        lock::take(&self.cache.blob_lock(file), MODE, &|| hub.check(), &waiting)
    }
}

/// Name of the file in the shared blob store; `None` without a Xet hash or if sharing is off.
fn shared_hash<'a>(hub: &Hub, file: &'a RemoteFile) -> Option<&'a str> {
    let remote = hub.remote();
    file.xet_hash.as_deref().filter(|_| remote.shared_blobs && remote.xet)
}

/// Indices of the files that `options` select.
fn select(options: &PullOptions, listing: &Listing) -> Result<Vec<usize>> {
    let wanted = |file: &RemoteFile| match options.bad {
        [] => options.filter.selects(&file.path),
        bad => bad.contains(&file.path),
    };
    let selected: Vec<usize> =
        (0..listing.files.len()).filter(|i| wanted(&listing.files[*i])).collect();
    let unknown =
        options.bad.iter().find(|path| listing.files.iter().all(|file| file.path != **path));
    let error = |subject: &str, message| Error::new(Kind::Validation, subject, message);
    match (unknown, selected.is_empty()) {
        (Some(path), _) => {
            let subject = format!("{}: {path}", options.id);
            Err(error(&subject, "the Hub has no such file of that revision"))
        }
        (None, true) => Err(nothing_selected(options.id, listing.files.len())),
        (None, false) => Ok(selected),
    }
}

/// Error of a filter that selects none of the `count` files of the model `id`.
pub(crate) fn nothing_selected(id: &str, count: usize) -> Error {
    Error::new(Kind::Validation, id, "no file of it is chosen")
        .hint(format!("a dry run without patterns names its {count} files"))
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.ends_with('/') {
        true => fnmatch::matches(&format!("{pattern}*"), path),
        false => fnmatch::matches(pattern, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_huggingface_hub() {
        let filter = |include: &[&str], exclude: &[&str]| FileFilter {
            include: include.iter().map(|p| (*p).to_owned()).collect(),
            exclude: exclude.iter().map(|p| (*p).to_owned()).collect(),
        };
        assert!(filter(&[], &[]).selects("a/b"));
        assert!(filter(&["*.json"], &[]).selects("a/b.json"), "a star matches a slash");
        assert!(!filter(&["*.json"], &[]).selects("model.safetensors"));
        assert!(!filter(&["*.json"], &["a/"]).selects("a/b.json"));
        assert!(filter(&[], &["a/"]).selects("ab.json"));
    }
}
