//! The store of blobs that all models of a cache share, in the layout of huggingface_hub 2.
//!
//! `hub/blobs/XX/HASH` is a payload, `HASH.refs` its manifest with a line, relative to the hub, for
//! each `models--org--name/blobs/ETAG` that links to the payload. A line is valid only while its link
//! exists, and a payload without a readable manifest is never deleted. A marker file with the version
//! of the layout distinguishes the store from another directory called `blobs`.

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
use crate::regular_file::{self, read_small};

const MARKER: &str = ".huggingface-shared-blobs";
const VERSION: &str = "1\n";

/// The maximum size of the marker in bytes.
const MAX_MARKER: u64 = 64;

/// The maximum size of a manifest in bytes.
const MAX_MANIFEST: u64 = 64 << 20;

/// The file mode of locks and manifests in huggingface_hub: writable for all.
const MODE: u32 = 0o666;

/// True if `hub` holds a shared store of the supported version.
pub fn exists(hub: &Path) -> Result<bool> {
    let marker = hub.join("blobs").join(MARKER);
    match read_small(&marker, MAX_MARKER) {
        Ok(content) => Ok(content == VERSION.as_bytes() && !marker.is_symlink()),
        Err(e) if is_absent(&e) || regular_file::is_unfit(&e) => Ok(false),
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

/// The payload that the blob `link` of a model links to; none if the blob is a file.
pub fn payload(link: &Path, hub: &Path) -> Result<Option<PathBuf>> {
    Ok(hop(link)?.filter(|target| is_payload(target, hub)))
}

/// The direct target of a symbolic link, its directory resolved; none if the path is not a link, or
/// the directory of the target does not exist.
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

/// The links to `payload` that its manifest lists and that exist; none without a readable manifest.
pub fn users(payload: &Path, hub: &Path) -> Result<Option<BTreeSet<PathBuf>>> {
    let manifest = beside(payload, "refs");
    if manifest.is_symlink() {
        return Ok(None);
    }
    let content = match read_small(&manifest, MAX_MANIFEST) {
        Ok(content) => content,
        Err(e) if is_absent(&e) || regular_file::is_unfit(&e) => return Ok(None),
        Err(e) => return Err(Error::io(&manifest, e)),
    };
    let Ok(content) = String::from_utf8(content) else {
        return Ok(None);
    };
    let mut users = BTreeSet::new();
    for line in content.lines().filter(|line| is_blob(Path::new(line))) {
        let link = hub.join(line);
        // A link that cannot be read may be one to this payload.
        if hop(&link).map_or(true, |target| target.as_deref() == Some(payload)) {
            users.insert(link);
        }
    }
    Ok(Some(users))
}

/// Makes `link`, the blob of a model, a link to the payload `hash` if its content has `size` bytes and
/// the digest `digest`.
///
/// `progress` is called with the number of bytes read, and with 0 while another program holds the
/// lock; if it returns an error, the work stops. Returns false without any change if there is no
/// such payload or the store is not usable.
pub fn adopt(
    link: &Path,
    hash: &str,
    size: u64,
    digest: Digest,
    hub: &Path,
    progress: &dyn Fn(u64) -> Result<()>,
) -> Result<bool> {
    if_usable(|| {
        if !offers(hash, size, hub)? {
            return Ok(false);
        }
        let payload = place(hash, hub);
        let _lock = lock(&payload, progress)?;
        if !offers(hash, size, hub)?
            || digest::file(&payload, digest.hasher(size), progress)? != digest
        {
            return Ok(false); // deleted meanwhile, or corrupt
        }
        // The manifest is written first, since a payload without listed users may be deleted.
        add_user(&beside(&payload, "refs"), link, hub)?;
        replace_link(link, &target(hash), repo_of(link))?;
        Ok(true)
    })
}

/// True if the store is usable and has a payload `hash` of `size` bytes; its content is not checked.
pub fn offers(hash: &str, size: u64, hub: &Path) -> Result<bool> {
    let payload = place(hash, hub);
    let fits = || fs::symlink_metadata(&payload).is_ok_and(|data| data.len() == size);
    if_usable(|| Ok(exists(hub)? && is_payload(&payload, hub) && fits() && is_open(&payload)))
}

/// Moves `blob`, a verified file of a model with the hash `hash`, into the store and puts a link in its
/// place. An existing payload is replaced for all models. `progress` is as for [`adopt`].
///
/// Returns false if there is no usable store; the blob is then unchanged. No store is created,
/// since programs without support for it would leave its payloads behind when they delete models.
pub fn publish(
    blob: &Path,
    hash: &str,
    hub: &Path,
    progress: &dyn Fn(u64) -> Result<()>,
) -> Result<bool> {
    if_usable(|| {
        if !is_hash(hash) || !exists(hub)? || blob.is_symlink() {
            return Ok(false);
        }
        let payload = place(hash, hub);
        if !is_open(&payload) {
            return Ok(false);
        }
        let directory = payload.parent().unwrap_or(hub);
        make_directory(directory, hub).map_err(|e| Error::io(directory, e))?;
        make_readable(blob, directory, hub).map_err(|e| Error::io(blob, e))?;
        let _lock = lock(&payload, progress)?;
        // The link is created first: if the disk is full that fails, and the model keeps its blob.
        let link = temp_link(&target(hash), repo_of(blob))?;
        add_user(&beside(&payload, "refs"), blob, hub)?;
        fs::rename(blob, &payload).map_err(|e| Error::io(&payload, e))?;
        link.persist(blob).map_err(|e| Error::io(blob, e.error))?;
        Ok(true)
    })
}

/// Runs `work`; false if access is denied or the file system does not support it, since models do not
/// need the store.
fn if_usable(work: impl FnOnce() -> Result<bool>) -> Result<bool> {
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

/// False if the manifest or the lock of `payload` is a link, through which nothing may be written.
fn is_open(payload: &Path) -> bool {
    ["refs", "lock"].iter().all(|suffix| !beside(payload, suffix).is_symlink())
}

/// The path of the payload `hash` in the store, whether it exists or not.
fn place(hash: &str, hub: &Path) -> PathBuf {
    hub.join("blobs").join(hash.get(..2).unwrap_or_default()).join(hash)
}

/// The path of the payload `hash` relative to the blobs of a model.
fn target(hash: &str) -> PathBuf {
    place(hash, Path::new("../.."))
}

/// The directory of the model of the blob `blob`.
fn repo_of(blob: &Path) -> &Path {
    blob.ancestors().nth(2).unwrap_or(blob)
}

/// Creates a directory of the store with the permissions of the hub.
fn make_directory(directory: &Path, hub: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
        Ok(()) => fs::set_permissions(directory, hub.metadata()?.permissions()),
    }
}

/// Makes `blob` readable for its owner and for the group and others that have the execute
/// permission on `hub`, and writable for nobody; its group becomes that of `directory`.
fn make_readable(blob: &Path, directory: &Path, hub: &Path) -> io::Result<()> {
    let enter = hub.metadata()?.mode() & 0o011;
    fs::set_permissions(blob, fs::Permissions::from_mode(0o400 | enter << 2))?;
    let group = directory.metadata()?.gid();
    if blob.metadata()?.gid() == group { Ok(()) } else { chown(blob, None, Some(group)) }
}

/// Creates a symbolic link to `target` at `link` atomically, replacing an existing file. The temporary
/// link is in the directory `temp`, which must be on the same file system.
pub fn replace_link(link: &Path, target: &Path, temp: &Path) -> Result<()> {
    temp_link(target, temp)?.persist(link).map_err(|e| Error::io(link, e.error))
}

/// A temporary symbolic link to `target` in the directory `temp`.
fn temp_link(target: &Path, temp: &Path) -> Result<TempPath> {
    let mut made = tempfile::Builder::new();
    let made = made.prefix(TEMP_PREFIX).suffix(".tmp").make_in(temp, |path| symlink(target, path));
    Ok(made.map_err(|e| Error::io(temp, e))?.into_temp_path())
}

/// Adds `link` to a manifest.
fn add_user(manifest: &Path, link: &Path, hub: &Path) -> Result<()> {
    let at = |e| Error::io(manifest, e);
    let Ok(line) = link.strip_prefix(hub) else {
        return Err(Error::at(Kind::Internal, link, "not in the cache"));
    };
    if manifest.is_symlink() {
        let message = "a manifest that is a symbolic link";
        return Err(Error::at(Kind::Execution, manifest, message));
    }
    let mut options = File::options();
    options.append(true).create(true).mode(MODE).custom_flags(regular_file::FLAGS);
    let mut file = options.open(manifest).map_err(at)?;
    file.metadata().and_then(|data| regular_file::check(&data)).map_err(at)?;
    lock::share(&file, MODE).map_err(at)?;
    file.write_all(format!("{}\n", line.display()).as_bytes()).map_err(at)?;
    file.sync_all().map_err(at)
}

/// Deletes `payload` under its lock if it has no users; otherwise removes stale lines from its
/// manifest.
/// True if the payload was deleted.
pub fn sweep(payload: &Path, hub: &Path) -> Result<bool> {
    let _lock = lock(payload, &|_| Ok(()))?;
    let manifest = beside(payload, "refs");
    match users(payload, hub)? {
        _ if !is_payload(payload, hub) => Ok(false), // another program deleted it
        None => Ok(false),
        Some(users) if users.is_empty() => {
            fs::remove_file(payload).map_err(|e| Error::io(payload, e))?;
            fs::remove_file(&manifest).map_err(|e| Error::io(&manifest, e))?;
            Ok(true)
        }
        Some(users) => rewrite(&manifest, &users, hub).map(|()| false),
    }
}

/// Takes the lock of `payload`; `progress` is as for [`adopt`].
fn lock(payload: &Path, progress: &dyn Fn(u64) -> Result<()>) -> Result<Lock> {
    let path = beside(payload, "lock");
    if path.is_symlink() {
        let message = "a lock that is a symbolic link";
        return Err(Error::at(Kind::DeletionFailed, &path, message));
    }
    lock::take(&path, MODE, &|| progress(0), &|| ())
}

fn rewrite(manifest: &Path, users: &BTreeSet<PathBuf>, hub: &Path) -> Result<()> {
    let lines = users.iter().filter_map(|link| link.strip_prefix(hub).ok());
    let content: String = lines.map(|line| format!("{}\n", line.display())).collect();
    atomic_write(manifest, manifest.parent().unwrap_or(manifest), |file| {
        let written = file.write_all(content.as_bytes()).and_then(|()| lock::share(file, MODE));
        written.map_err(|e| Error::io(manifest, e))
    })
}

/// The path of `HASH.refs` or `HASH.lock` beside a payload.
fn beside(payload: &Path, suffix: &str) -> PathBuf {
    payload.with_extension(suffix)
}

/// True if `path` is a file `hub/blobs/XX/HASH` where `HASH` begins with `XX`.
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

/// True if the path is relative and has the form `TYPE--ORG--NAME/blobs/ETAG`.
fn is_blob(path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let parts: Vec<_> = path.iter().filter_map(|part| part.to_str()).collect();
    matches!(parts.as_slice(), [repo, "blobs", _] if repo.contains("--")) && plain
}
