//! The store of blobs that all models of a cache share, as huggingface_hub 2 keeps it.
//!
//! `hub/blobs/XX/HASH` is a payload, `HASH.refs` its manifest: one line, relative to the hub, for
//! each `models--org--name/blobs/ETAG` that links to it. A line counts only while that link is
//! there, and a payload without a readable manifest is never deleted. A marker file with the version
//! of the layout tells the store from a directory that happens to be called `blobs`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use tempfile::TempPath;

use super::atomic_write::{TEMP_PREFIX, atomic_write};
use super::directory::{entries, is_absent};
use super::lock::{self, Lock};
use crate::digest::{self, Digest};
use crate::error::{Error, Kind, Result};

const MARKER: &str = ".huggingface-shared-blobs";
const VERSION: &str = "1\n";

/// The mode of locks and manifests, as huggingface_hub has it: for all who may enter the store.
const MODE: u32 = 0o666;

/// True if `hub` holds a shared store of the layout described here.
pub fn exists(hub: &Path) -> Result<bool> {
    let marker = hub.join("blobs").join(MARKER);
    match fs::read(&marker) {
        Ok(content) => Ok(content == VERSION.as_bytes() && !marker.is_symlink()),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(Error::io(&marker, e)),
    }
}

/// Every payload of the store, sorted.
pub fn payloads(hub: &Path) -> Result<Vec<PathBuf>> {
    let mut payloads = Vec::new();
    for (prefix, directory) in entries(&hub.join("blobs"))? {
        if prefix.len() != 2 || directory.is_symlink() {
            continue;
        }
        payloads.extend(entries(&directory)?.into_iter().map(|(_, path)| path));
    }
    payloads.retain(|path| is_payload(path, hub));
    payloads.sort();
    Ok(payloads)
}

/// The payload that the blob `link` of a model stands for; none if it is a file of its own.
pub fn payload(link: &Path, hub: &Path) -> Result<Option<PathBuf>> {
    Ok(hop(link)?.filter(|target| is_payload(target, hub)))
}

/// Where the symbolic link leads in one step, the directories on the way resolved; none if it is no
/// link, or leads into a directory that does not exist.
pub fn hop(link: &Path) -> Result<Option<PathBuf>> {
    let target = match fs::read_link(link) {
        Ok(target) => link.parent().unwrap_or(link).join(target),
        Err(e) if is_absent(&e) || e.kind() == io::ErrorKind::InvalidInput => return Ok(None),
        Err(e) => return Err(Error::io(link, e)),
    };
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
        return Ok(None);
    };
    match directory.canonicalize() {
        Ok(directory) => Ok(Some(directory.join(name))),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(Error::io(directory, e)),
    }
}

/// The links that use `payload`, as far as its manifest knows them; none without a manifest.
pub fn users(payload: &Path, hub: &Path) -> Result<Option<BTreeSet<PathBuf>>> {
    let manifest = beside(payload, "refs");
    if manifest.is_symlink() {
        return Ok(None);
    }
    let content = match fs::read(&manifest) {
        Ok(content) => content,
        Err(e) if is_absent(&e) => return Ok(None),
        Err(e) => return Err(Error::io(&manifest, e)),
    };
    let Ok(content) = String::from_utf8(content) else {
        return Ok(None);
    };
    let mut users = BTreeSet::new();
    for line in content.lines().filter(|line| is_blob(Path::new(line))) {
        let link = hub.join(line);
        if hop(&link)?.as_deref() == Some(payload) {
            users.insert(link);
        }
    }
    Ok(Some(users))
}

/// Makes `link`, the blob of a model, a link to what the store has under `hash`, if it has it there
/// and that is the `size` bytes which `digest` names; `heed` hears of bytes read, of none while it
/// waits for another program, and can end it.
///
/// False if not, or if the store may not be used: then nothing is changed.
pub fn adopt(
    link: &Path,
    hash: &str,
    size: u64,
    digest: Digest,
    hub: &Path,
    heed: &dyn Fn(u64) -> Result<()>,
) -> Result<bool> {
    at_best(|| {
        if !offers(hash, size, hub)? {
            return Ok(false);
        }
        let payload = place(hash, hub);
        let _lock = lock(&payload, heed)?;
        if !offers(hash, size, hub)? || digest::file(&payload, digest.hasher(size), heed)? != digest
        {
            return Ok(false); // swept meanwhile, or something else
        }
        // The manifest comes first: a payload whose users it does not know would be swept.
        note_user(&beside(&payload, "refs"), link, hub)?;
        replace_link(link, &target(hash), repo_of(link))?;
        Ok(true)
    })
}

/// True if the store may be used and has `size` bytes under `hash`, whether they are the right ones
/// or not.
pub fn offers(hash: &str, size: u64, hub: &Path) -> Result<bool> {
    let payload = place(hash, hub);
    let fits = || fs::symlink_metadata(&payload).is_ok_and(|data| data.len() == size);
    at_best(|| Ok(exists(hub)? && is_payload(&payload, hub) && fits() && is_open(&payload)))
}

/// Moves `blob`, a file of a model that is verified to be what the Hub knows by `hash`, into the
/// store, and leaves a link. What the store had under that name gives way to it, for all models.
/// `heed` is as in [`adopt`].
///
/// False where there is no store, or one that may not be used: then the blob stays what it is. No
/// store is made, since programs that know none would leave behind what is in it when they delete.
pub fn publish(
    blob: &Path,
    hash: &str,
    hub: &Path,
    heed: &dyn Fn(u64) -> Result<()>,
) -> Result<bool> {
    at_best(|| {
        if !is_hash(hash) || !exists(hub)? || blob.is_symlink() {
            return Ok(false);
        }
        let payload = place(hash, hub);
        if !is_open(&payload) {
            return Ok(false);
        }
        let directory = payload.parent().unwrap_or(hub);
        make_directory(directory, hub).map_err(|e| Error::io(directory, e))?;
        open_up(blob, directory, hub).map_err(|e| Error::io(blob, e))?;
        let _lock = lock(&payload, heed)?;
        // The link comes first: on a full disk there is none, and the model keeps its blob.
        let link = link_aside(&target(hash), repo_of(blob))?;
        note_user(&beside(&payload, "refs"), blob, hub)?;
        fs::rename(blob, &payload).map_err(|e| Error::io(&payload, e))?;
        link.persist(blob).map_err(|e| Error::io(blob, e.error))?;
        Ok(true)
    })
}

/// False if the store is another user's, or on a file system that cannot do what it takes: models
/// do without it then.
fn at_best(work: impl FnOnce() -> Result<bool>) -> Result<bool> {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, Unsupported};
    match work() {
        Err(e)
            if matches!(e.io_kind(), Some(PermissionDenied | ReadOnlyFilesystem | Unsupported)) =>
        {
            Ok(false)
        }
        done => done,
    }
}

/// False if what belongs to `payload` leads elsewhere: nothing is written through a link.
fn is_open(payload: &Path) -> bool {
    ["refs", "lock"].iter().all(|suffix| !beside(payload, suffix).is_symlink())
}

/// Where the store has the payload `hash`, or would have it.
fn place(hash: &str, hub: &Path) -> PathBuf {
    hub.join("blobs").join(hash.get(..2).unwrap_or_default()).join(hash)
}

/// The payload `hash` as a blob of a model leads to it.
fn target(hash: &str) -> PathBuf {
    place(hash, Path::new("../.."))
}

/// The directory of the model that has the blob `blob`.
fn repo_of(blob: &Path) -> &Path {
    blob.ancestors().nth(2).unwrap_or(blob)
}

/// Makes a directory of the store, open to whom the hub is open to.
fn make_directory(directory: &Path, hub: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
        Ok(()) => fs::set_permissions(directory, hub.metadata()?.permissions()),
    }
}

/// Lets everybody read the file `blob` who may enter `hub`, and nobody write it.
fn open_up(blob: &Path, directory: &Path, hub: &Path) -> io::Result<()> {
    let enter = hub.metadata()?.mode() & 0o011;
    fs::set_permissions(blob, fs::Permissions::from_mode(0o400 | enter << 2))?;
    let group = directory.metadata()?.gid();
    if blob.metadata()?.gid() == group { Ok(()) } else { chown(blob, None, Some(group)) }
}

/// Puts a symbolic link to `target` at `link`, in one step with what was there going; before that it
/// lies in the directory `aside`, of the same file system.
pub fn replace_link(link: &Path, target: &Path, aside: &Path) -> Result<()> {
    link_aside(target, aside)?.persist(link).map_err(|e| Error::io(link, e.error))
}

/// A symbolic link to `target` that waits in the directory `aside` for its place.
fn link_aside(target: &Path, aside: &Path) -> Result<TempPath> {
    let mut made = tempfile::Builder::new();
    let made = made.prefix(TEMP_PREFIX).suffix(".tmp").make_in(aside, |path| symlink(target, path));
    Ok(made.map_err(|e| Error::io(aside, e))?.into_temp_path())
}

/// Adds the line of `link` to a manifest.
fn note_user(manifest: &Path, link: &Path, hub: &Path) -> Result<()> {
    let at = |e| Error::io(manifest, e);
    let Ok(line) = link.strip_prefix(hub) else {
        return Err(Error::new(Kind::Internal, link.display().to_string(), "not in the cache"));
    };
    if manifest.is_symlink() {
        let message = "a manifest that is a symbolic link";
        return Err(Error::new(Kind::Execution, manifest.display().to_string(), message));
    }
    let mut file =
        File::options().append(true).create(true).mode(MODE).open(manifest).map_err(at)?;
    lock::share(&file, MODE).map_err(at)?;
    file.write_all(format!("{}\n", line.display()).as_bytes()).map_err(at)?;
    file.sync_all().map_err(at)
}

/// Deletes `payload` if nothing uses it any more, under its lock; else cleans up its manifest.
/// True if it was deleted.
pub fn sweep(payload: &Path, hub: &Path) -> Result<bool> {
    let _lock = lock(payload, &|_| Ok(()))?;
    let manifest = beside(payload, "refs");
    match users(payload, hub)? {
        _ if !is_payload(payload, hub) => Ok(false), // somebody was faster
        None => Ok(false),
        Some(users) if users.is_empty() => {
            fs::remove_file(payload).map_err(|e| Error::io(payload, e))?;
            fs::remove_file(&manifest).map_err(|e| Error::io(&manifest, e))?;
            Ok(true)
        }
        Some(users) => rewrite(&manifest, &users, hub).map(|()| false),
    }
}

/// Locks what belongs to `payload` against every other program; `heed` is as in [`adopt`].
fn lock(payload: &Path, heed: &dyn Fn(u64) -> Result<()>) -> Result<Lock> {
    let path = beside(payload, "lock");
    if path.is_symlink() {
        let message = "a lock that is a symbolic link";
        return Err(Error::new(Kind::DeletionFailed, path.display().to_string(), message));
    }
    lock::take(&path, MODE, &|| heed(0), &|| ())
}

fn rewrite(manifest: &Path, users: &BTreeSet<PathBuf>, hub: &Path) -> Result<()> {
    let lines = users.iter().filter_map(|link| link.strip_prefix(hub).ok());
    let content: String = lines.map(|line| format!("{}\n", line.display())).collect();
    atomic_write(manifest, manifest.parent().unwrap_or(manifest), |file| {
        let written = file.write_all(content.as_bytes()).and_then(|()| lock::share(file, MODE));
        written.map_err(|e| Error::io(manifest, e))
    })
}

/// `HASH.refs`, `HASH.lock`.
fn beside(payload: &Path, suffix: &str) -> PathBuf {
    payload.with_extension(suffix)
}

/// True for `hub/blobs/XX/HASH`, a file whose name begins with that of its directory.
fn is_payload(path: &Path, hub: &Path) -> bool {
    let Ok(inner) = path.strip_prefix(hub.join("blobs")) else {
        return false;
    };
    let parts: Vec<_> = inner.iter().filter_map(|part| part.to_str()).collect();
    let [prefix, hash] = parts.as_slice() else {
        return false;
    };
    let named = is_hash(hash) && hash.get(..2) == Some(prefix);
    named && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// True for a relative path `TYPE--ORG--NAME/blobs/ETAG`.
fn is_blob(path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    matches!(parts.as_slice(), [repo, "blobs", _] if repo.contains("--")) && plain
}
