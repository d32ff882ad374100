//! Deletions from the cache: a plan of all paths and bytes, and its execution.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::atomic_write::TEMP_PREFIX;
use super::cache::{Repo, Snapshot};
use super::directory::{entries, is_absent};
use super::{activity, shared};
use crate::error::{Error, Kind, Result};

/// The paths to delete, in an order that never leaves a dangling reference behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// The bytes that the deletion frees. A file counts when its last name is deleted, so files that
    /// another model or revision uses do not; manifests and locks of the shared store do not count.
    pub bytes: u64,
    /// Refs: files, or whole directories of them.
    pub refs: Vec<PathBuf>,
    /// Snapshot directories, other files of one revision, and temporary files of killed programs.
    pub snapshots: Vec<PathBuf>,
    /// Blobs of a model: files, or links into the shared store.
    pub blobs: Vec<PathBuf>,
    /// Whole directories `models--org--name`.
    pub repos: Vec<PathBuf>,
    /// Payloads of the shared store.
    pub payloads: Vec<PathBuf>,
    /// Lock files that no process holds.
    pub locks: Vec<PathBuf>,
    hub: PathBuf,
}

impl Deletion {
    /// An empty plan for the cache at `hub`.
    pub(crate) fn new(hub: &Path) -> Result<Deletion> {
        let hub = hub.canonicalize().map_err(|e| match is_absent(&e) {
            true => Error::at(Kind::CacheNotFound, hub, "no such cache"),
            false => Error::io(hub, e),
        })?;
        Ok(Deletion { hub, ..Deletion::default() })
    }

    /// The directory of the cache, links resolved.
    pub(crate) fn hub(&self) -> &Path {
        &self.hub
    }

    /// An empty plan for the same cache.
    pub(crate) fn empty(&self) -> Deletion {
        Deletion { hub: self.hub.clone(), ..Deletion::default() }
    }

    /// Adds the paths of `other`, a plan that is not finished.
    pub(crate) fn append(&mut self, mut other: Deletion) {
        self.refs.append(&mut other.refs);
        self.snapshots.append(&mut other.snapshots);
        self.blobs.append(&mut other.blobs);
        self.repos.append(&mut other.repos);
        self.locks.append(&mut other.locks);
    }

    /// Checks that everything below the paths can be listed.
    pub(crate) fn check_readable(&self) -> Result<()> {
        self.links()?;
        let mut files = BTreeMap::new();
        self.paths().try_for_each(|path| collect_files(path, &mut files))
    }

    /// True if the plan has no paths.
    pub fn is_empty(&self) -> bool {
        self.paths().next().is_none()
    }

    /// All paths to delete, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.refs, &self.snapshots, &self.blobs, &self.repos, &self.payloads, &self.locks]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// Adds a model with its refs, snapshots, blobs and locks.
    pub(crate) fn add_repo(&mut self, repo: &Repo) -> Result<()> {
        self.refs.extend(present(repo.path.join("refs")));
        self.snapshots.extend(present(repo.path.join("snapshots")));
        self.repos.push(repo.path.clone());
        self.locks.extend(activity::files(&self.hub, &repo.path)?);
        Ok(())
    }

    /// Adds revisions of a model with their refs and other files, but not their blobs.
    pub(crate) fn add_revisions(&mut self, repo: &Repo, gone: &[Snapshot]) -> Result<()> {
        let to_gone = |commit: &str| gone.iter().any(|snapshot| snapshot.revision == commit);
        let refs = repo.refs()?.into_iter().filter(|r| to_gone(&r.commit));
        self.refs.extend(refs.map(|r| r.path));
        for snapshot in gone {
            self.snapshots.push(snapshot.path.clone());
            let tree = repo.path.join("trees").join(format!("{}.json", snapshot.revision));
            self.snapshots.extend(present(tree));
            self.snapshots.extend(present(repo.path.join(".no_exist").join(&snapshot.revision)));
        }
        Ok(())
    }

    /// Completes the plan with the shared `payloads` that lose their last user, and the bytes.
    pub(crate) fn finish(
        mut self,
        payloads: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Deletion> {
        let links: BTreeSet<PathBuf> = self.links()?.into_iter().collect();
        for payload in payloads.into_iter().collect::<BTreeSet<_>>() {
            let users = shared::users(&payload, &self.hub)?;
            if users.is_some_and(|users| users.is_subset(&links)) {
                self.payloads.push(payload);
            }
        }
        let mut files = BTreeMap::new();
        for path in self.paths() {
            collect_files(path, &mut files)?;
        }
        self.bytes = freed(files.values());
        Ok(self)
    }

    /// The shared payloads that the deleted blobs link to.
    pub(crate) fn linked(&self) -> Result<BTreeSet<PathBuf>> {
        let mut payloads = BTreeSet::new();
        if shared::exists(&self.hub)? {
            for link in self.links()? {
                payloads.extend(shared::payload(&link, &self.hub)?);
            }
        }
        Ok(payloads)
    }

    /// Every deleted blob, alone or with its model.
    fn links(&self) -> Result<Vec<PathBuf>> {
        let mut links = self.blobs.clone();
        for repo in &self.repos {
            links.extend(entries(&repo.join("blobs"))?.into_iter().map(|(_, path)| path));
        }
        Ok(links)
    }

    /// Deletes the paths and returns the bytes freed. `now` is the same plan made again.
    ///
    /// A model or a revision vanishes at once: its directory is renamed before it is deleted, so that
    /// no other program finds a part of it.
    ///
    /// # Errors
    /// If `now` differs, or a directory on the way to a path is a link, which would lead out of the
    /// cache; then nothing is deleted. `ModelNotFound` if another program deletes all of it. If the
    /// file system fails, a part may be deleted.
    pub(crate) fn execute(&self, now: &Deletion) -> Result<u64> {
        if now != self {
            let message = "the cache has changed since this was planned";
            return Err(Error::at(Kind::DeletionFailed, &self.hub, message)
                .hint("nothing was deleted; try again"));
        }
        self.paths().try_for_each(|path| self.guard(path))?;
        let mut linked = self.linked()?;
        linked.retain(|payload| !self.payloads.contains(payload));
        let aside = self.set_aside()?;
        for path in [&self.refs, &self.snapshots, &self.blobs, &self.repos].into_iter().flatten() {
            remove(path)?;
        }
        aside.iter().try_for_each(|directory| remove(directory.path()))?;
        let mut bytes = self.bytes;
        for payload in linked {
            // Removes the lines of deleted links from the manifest; stale lines are harmless.
            drop(shared::sweep(&payload, &self.hub));
        }
        for payload in &self.payloads {
            let size = metadata(payload)?.map_or(0, |metadata| metadata.len());
            if !shared::sweep(payload, &self.hub)? {
                bytes = bytes.saturating_sub(size); // it got a new user meanwhile
            }
        }
        self.locks.iter().try_for_each(|lock| remove(lock))?;
        for directory in self.locks.iter().filter_map(|lock| lock.parent()) {
            remove_if_empty(directory)?;
        }
        Ok(bytes)
    }

    /// Renames the directories of models and revisions to temporary ones; those that cannot be renamed
    /// stay in place.
    fn set_aside(&self) -> Result<Vec<TempDir>> {
        let repos = self.repos.iter().map(|repo| (repo, Some(&*self.hub)));
        let is_revision = |path: &&PathBuf| is_child(path, "snapshots");
        let revisions = self.snapshots.iter().filter(is_revision);
        let revisions = revisions.map(|path| (path, path.ancestors().nth(2)));
        let due: Vec<_> = repos.chain(revisions).collect();
        let mut aside = Vec::new();
        let mut gone = 0;
        for (path, temp) in &due {
            match temp.map(|temp| rename_into(path, temp)) {
                Some(Ok(directory)) => aside.push(directory),
                Some(Err(e)) if is_absent(&e) => gone += 1,
                // Such as a directory that is a mount point, or one that may not be written to.
                Some(Err(_)) | None => {}
            }
        }
        match gone > 0 && gone == due.len() {
            true => Err(Error::at(Kind::ModelNotFound, &self.hub, "another program removed it")),
            false => Ok(aside),
        }
    }

    /// Checks that a path is below the cache, and that no directory on the way is a link.
    fn guard(&self, path: &Path) -> Result<()> {
        let refuse = |path: &Path, message| {
            Err(Error::at(Kind::DeletionFailed, path, message)
                .hint("nothing was deleted; remove it by hand"))
        };
        if !path.starts_with(&self.hub) || path == self.hub {
            return refuse(path, "lies outside the cache");
        }
        let above = path.ancestors().skip(1).take_while(|above| *above != self.hub);
        match above.into_iter().find(|above| above.is_symlink()) {
            Some(link) => refuse(link, "is a symbolic link, not a directory of the cache"),
            None => Ok(()),
        }
    }
}

/// Renames `path` to a new temporary directory in `temp`.
fn rename_into(path: &Path, temp: &Path) -> io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(TEMP_PREFIX).suffix(".tmp").tempdir_in(temp)?;
    fs::rename(path, directory.path())?;
    Ok(directory)
}

/// True if the directory above `path` is called `name`.
fn is_child(path: &Path, name: &str) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|parent| parent == name)
}

/// The blobs that a snapshot links to; their links into the shared store are not followed.
pub(crate) fn blobs_of(snapshot: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut blobs = BTreeSet::new();
    for (_, path) in entries(snapshot)? {
        match metadata(&path)? {
            Some(metadata) if metadata.is_dir() => blobs.extend(blobs_of(&path)?),
            Some(metadata) if metadata.is_symlink() => blobs.extend(shared::hop(&path)?),
            _ => {}
        }
    }
    Ok(blobs)
}

/// The regular files at and below `path`, links not followed.
fn collect_files(path: &Path, files: &mut BTreeMap<PathBuf, Metadata>) -> Result<()> {
    match metadata(path)? {
        Some(metadata) if metadata.is_dir() => {
            entries(path)?.iter().try_for_each(|(_, path)| collect_files(path, files))?;
        }
        Some(metadata) if metadata.is_file() => {
            files.insert(path.to_owned(), metadata);
        }
        _ => {}
    }
    Ok(())
}

/// The total size of the files that keep no other hard link.
fn freed<'a>(files: impl Iterator<Item = &'a Metadata>) -> u64 {
    let mut names: HashMap<(u64, u64), (u64, &Metadata)> = HashMap::new();
    for file in files {
        names.entry((file.dev(), file.ino())).or_insert((0, file)).0 += 1;
    }
    let gone = names.values().filter(|(names, file)| *names >= file.nlink());
    gone.map(|(_, file)| file.len()).sum()
}

/// The metadata of `path`, links not followed; none if it does not exist.
fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

fn present(path: PathBuf) -> Option<PathBuf> {
    fs::symlink_metadata(&path).is_ok().then_some(path)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match metadata(path)? {
        None => return Ok(()),
        Some(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Some(_) => fs::remove_file(path),
    };
    removed.or_else(|e| if is_absent(&e) { Ok(()) } else { Err(failed(path, e)) })
}

fn failed(path: &Path, error: io::Error) -> Error {
    let mut error = Error::io(path, error);
    if error.kind != Kind::PermissionDenied {
        error.kind = Kind::DeletionFailed;
    }
    error
}

fn remove_if_empty(directory: &Path) -> Result<()> {
    match entries(directory)?.is_empty() {
        true => remove(directory),
        false => Ok(()),
    }
}
