//! Pulling: a revision of a model from the Hub into the cache.
//!
//! A plan is made first, by questions alone. Then the blobs come, each verified before it gets its
//! name; when all are there the snapshot appears, and last the ref that makes it the current one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxk_core::store::lock::{self, Lock, MODE};
use mlxk_core::store::shared;
use mlxk_core::{Error, Kind, Places, Result, fnmatch};

use crate::cache::Cache;
use crate::client::Hub;
use crate::event::{Event, Listener};
use crate::listing::{self, Listing, RemoteFile};
use crate::part;
use crate::transfer::{self, Job, check_room, is_there};
use crate::xet::Storage;

/// The revision that is meant where none is named.
pub const MAIN: &str = "main";

/// What shall be pulled.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// `org/name`
    pub id: &'a str,
    /// A branch, tag or commit.
    pub revision: &'a str,
    /// Which of its files.
    pub choice: &'a Choice,
    /// Files whose content in the cache is known to be bad; if there are any, only these are meant.
    pub bad: &'a [String],
}

/// Which files of a model: those that match a pattern of `include`, or all, but none of `exclude`.
///
/// The patterns are those of `fnmatch` over the whole path, where `*` matches slashes too; a
/// directory's name with a slash behind it means all that is in it.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Empty for all.
    pub include: Vec<String>,
    /// Empty for none.
    pub exclude: Vec<String>,
}

impl Choice {
    /// True if the file `path` is chosen.
    pub fn takes(&self, path: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// What came over the network.
#[derive(Debug)]
pub struct Fetched<'a> {
    /// The files, each content once.
    pub files: Vec<&'a RemoteFile>,
    /// Their bytes, less those that were here already.
    pub bytes: u64,
}

/// What pulling would do.
#[derive(Debug)]
pub struct Plan {
    /// The model.
    pub id: String,
    /// The revision that was asked for.
    pub revision: String,
    /// All files of the revision.
    pub listing: Listing,
    /// Those chosen, as indices.
    chosen: Vec<usize>,
    /// Those to fetch, as indices; each content once.
    missing: Vec<usize>,
    /// Bytes that are here of those already.
    pub present: u64,
    replace: bool,
    settled: bool,
    cache: Cache,
}

impl Plan {
    /// Asks the Hub what there is, and looks what is here. Nothing is created.
    ///
    /// Errors are those of [`listing::info`], and `Validation` for a choice that chooses nothing.
    pub fn new(hub: &Hub, wish: Wish, places: &Places, told: Listener) -> Result<Plan> {
        let info = listing::info(hub, wish.id, wish.revision, told)?;
        let listing = listing::files(hub, wish.id, &info.commit, told)?;
        let cache = Cache::new(&places.hub, wish.id);
        let chosen = choose(&wish, &listing)?;
        let mut contents = BTreeSet::new();
        let files = &listing.files;
        let missing: Vec<usize> = (chosen.iter().copied())
            .filter(|i| !wish.bad.is_empty() || !is_there(&cache.blob(&files[*i]), &files[*i]))
            .filter(|i| contents.insert(files[*i].etag()))
            .collect();
        if let (true, Some(first)) = (info.gated, missing.first()) {
            files[*first].check_access(hub, wish.id, &info.commit, told)?;
        }
        let mut present = 0;
        for i in &missing {
            present += part::present(&cache.part(&files[*i]), files[*i].size, files[*i].digest()?);
        }
        let named = chosen.iter().all(|i| cache.has(&info.commit, &files[*i]));
        let main = wish.revision == info.commit
            || cache.commit_of(wish.revision)?.is_some_and(|commit| commit == info.commit);
        Ok(Plan {
            id: wish.id.to_owned(),
            revision: wish.revision.to_owned(),
            present,
            replace: !wish.bad.is_empty(),
            settled: missing.is_empty() && named && main,
            chosen,
            missing,
            listing,
            cache,
        })
    }

    /// The files that would be fetched, each content once.
    pub fn missing(&self) -> impl Iterator<Item = &RemoteFile> {
        self.missing.iter().map(|i| &self.listing.files[*i])
    }

    /// The files that were chosen.
    pub fn chosen(&self) -> impl Iterator<Item = &RemoteFile> {
        self.chosen.iter().map(|i| &self.listing.files[*i])
    }

    /// The bytes that would come over the network.
    pub fn bytes(&self) -> u64 {
        self.missing().map(|file| file.size).sum::<u64>() - self.present
    }

    /// True if everything is as it should be already.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// Does it; what came over the network.
    ///
    /// # Errors
    /// If the disk has no room, a file does not come or is not what the Hub lists, another program
    /// has removed what was there, or the user has had enough.
    pub fn execute(&self, hub: &Hub, told: Listener) -> Result<Fetched<'_>> {
        let (cache, commit) = (&self.cache, &self.listing.commit);
        let mut bytes = 0;
        for file in self.missing() {
            bytes += if self.is_offered(hub, file)? { 0 } else { self.lacking(file)? };
        }
        check_room(cache.hub(), bytes)?;
        cache.prepare(&self.listing)?;
        let bytes = self.missing().map(|file| file.size).sum();
        told(Event::Plan { files: self.missing.len(), bytes, present: self.present });
        let mut fetched = Fetched { files: Vec::new(), bytes: 0 };
        for file in self.missing() {
            if !self.adopt(hub, file, told)? {
                fetched.bytes += self.lacking(file)?;
                fetched.files.push(file);
            }
        }
        check_room(cache.hub(), fetched.bytes)?;
        let mut jobs: Vec<_> = fetched.files.iter().map(|file| self.job(hub, file)).collect();
        jobs.sort_by_key(|job| job.file.size); // what is small fails early, if it does
        let storage = Storage::of(hub, &self.id, commit);
        transfer::fetch(hub, &jobs, storage.as_ref(), told)?;
        jobs.iter().try_for_each(|job| self.share(hub, job.file, told))?;
        self.name(hub, told)?;
        Ok(fetched)
    }

    /// Gives what is there now its names, and the revision that it is.
    fn name(&self, hub: &Hub, told: Listener) -> Result<()> {
        let (cache, commit) = (&self.cache, &self.listing.commit);
        let waiting = || told(Event::Locked { path: "" });
        let _lock = lock::take(&cache.lock_of(commit), MODE, &|| hub.check(), &waiting)?;
        for file in self.chosen() {
            cache.clear(file)?;
            if !is_there(&cache.blob(file), file) {
                let subject = format!("{}: {}", self.id, file.path);
                let message = "another program has removed it meanwhile";
                return Err(Error::new(Kind::DownloadFailed, subject, message).hint("try again"));
            }
        }
        cache.name(commit, &self.chosen().collect::<Vec<_>>())?;
        cache.set_ref(&self.revision, commit)
    }

    /// The bytes of a file that are not here.
    fn lacking(&self, file: &RemoteFile) -> Result<u64> {
        Ok(file.size - part::present(&self.cache.part(file), file.size, file.digest()?))
    }

    fn job<'a>(&'a self, hub: &Hub, file: &'a RemoteFile) -> Job<'a> {
        Job {
            model: &self.id,
            file,
            url: file.url(hub, &self.id, &self.listing.commit),
            part: self.cache.part(file),
            place: self.cache.blob(file),
            lock: Some(self.cache.lock(file)),
            replace: self.replace,
        }
    }

    /// True if the models of the cache seem to share the file.
    fn is_offered(&self, hub: &Hub, file: &RemoteFile) -> Result<bool> {
        match shared_hash(hub, file).filter(|_| !self.replace) {
            Some(hash) => shared::offers(hash, file.size, self.cache.hub()),
            None => Ok(false),
        }
    }

    /// True if the file could be had from what the models of the cache share.
    fn adopt(&self, hub: &Hub, file: &RemoteFile, told: Listener) -> Result<bool> {
        let (path, size) = (&*file.path, file.size);
        let Some(hash) = shared_hash(hub, file).filter(|_| !self.replace) else {
            return Ok(false);
        };
        if !shared::offers(hash, size, self.cache.hub())? {
            return Ok(false);
        }
        let _lock = self.lock(hub, file, told)?;
        told(Event::Begin { path, size, present: 0 });
        let read = AtomicU64::new(0);
        let heed = |bytes| {
            read.fetch_add(bytes, Ordering::Relaxed);
            told(Event::Moved { path, bytes });
            hub.check()
        };
        let blob = self.cache.blob(file);
        let adopted = shared::adopt(&blob, hash, size, file.digest()?, self.cache.hub(), &heed)?;
        told(match adopted {
            true => Event::Done { path },
            false => Event::Lost { path, bytes: read.into_inner() },
        });
        Ok(adopted)
    }

    /// Lets the models of the cache share a file that was fetched, where they do share.
    fn share(&self, hub: &Hub, file: &RemoteFile, told: Listener) -> Result<()> {
        let Some(hash) = shared_hash(hub, file) else {
            return Ok(());
        };
        let _lock = self.lock(hub, file, told)?;
        let blob = self.cache.blob(file);
        if is_there(&blob, file) {
            shared::publish(&blob, hash, self.cache.hub(), &|_| hub.check())?;
        }
        Ok(())
    }

    fn lock(&self, hub: &Hub, file: &RemoteFile, told: Listener) -> Result<Lock> {
        let waiting = || told(Event::Locked { path: &file.path });
        lock::take(&self.cache.lock(file), MODE, &|| hub.check(), &waiting)
    }
}

/// What the store that models share calls the file; none if it cannot be there, or shall not.
fn shared_hash<'a>(hub: &Hub, file: &'a RemoteFile) -> Option<&'a str> {
    let remote = hub.remote();
    file.xet_hash.as_deref().filter(|_| remote.shared_blobs && remote.xet)
}

/// The files that are wished for.
fn choose(wish: &Wish, listing: &Listing) -> Result<Vec<usize>> {
    let wanted = |file: &RemoteFile| match wish.bad {
        [] => wish.choice.takes(&file.path),
        bad => bad.contains(&file.path),
    };
    let chosen: Vec<usize> =
        (0..listing.files.len()).filter(|i| wanted(&listing.files[*i])).collect();
    let strange = wish.bad.iter().find(|path| listing.files.iter().all(|file| file.path != **path));
    let error = |subject: &str, message| Error::new(Kind::Validation, subject, message);
    match (strange, chosen.is_empty()) {
        (Some(path), _) => {
            let subject = format!("{}: {path}", wish.id);
            Err(error(&subject, "the Hub has no such file of that revision"))
        }
        (None, true) => Err(none_chosen(wish.id, listing.files.len())),
        (None, false) => Ok(chosen),
    }
}

/// That of the `count` files of the model `id` none is chosen.
pub(crate) fn none_chosen(id: &str, count: usize) -> Error {
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
    fn patterns_choose_as_those_of_huggingface_hub() {
        let choice = |include: &[&str], exclude: &[&str]| Choice {
            include: include.iter().map(|p| (*p).to_owned()).collect(),
            exclude: exclude.iter().map(|p| (*p).to_owned()).collect(),
        };
        assert!(choice(&[], &[]).takes("a/b"));
        assert!(choice(&["*.json"], &[]).takes("a/b.json"), "a star matches a slash");
        assert!(!choice(&["*.json"], &[]).takes("model.safetensors"));
        assert!(!choice(&["*.json"], &["a/"]).takes("a/b.json"));
        assert!(choice(&[], &["a/"]).takes("ab.json"));
    }
}
