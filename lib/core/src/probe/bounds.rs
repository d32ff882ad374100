//! Where the links of a model may lead.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::store::{Found, Origin};

/// The places that may hold what the links of a model show.
///
/// A workspace keeps to itself. A snapshot in the cache links to its repository's `blobs`, and
/// those may link on to the store that all repositories share, since huggingface_hub 2.
pub struct Bounds<'a> {
    model: &'a Path,
    /// The repository's blobs.
    blobs: Option<PathBuf>,
    /// The shared store.
    store: Option<PathBuf>,
    /// True if there is no link between snapshot and blobs, so that `..` is what it seems.
    direct: bool,
}

impl<'a> Bounds<'a> {
    /// The bounds of a found model.
    pub fn new(found: &'a Found) -> Bounds<'a> {
        let model = found.path.as_path();
        let Origin::Cache { repo } = &found.origin else {
            return Bounds { model, blobs: None, store: None, direct: false };
        };
        let (snapshots, blobs) = (repo.join("snapshots"), repo.join("blobs"));
        let direct = model.parent() == Some(&snapshots)
            && [model, &snapshots, &blobs].into_iter().all(is_directory);
        let store = repo.parent().map(|hub| hub.join("blobs"));
        let store = store.filter(|store| store.join(".huggingface-shared-blobs").is_file());
        Bounds { model, blobs: Some(blobs), store, direct }
    }

    /// What the link at `path`, relative to the model, shows in the end.
    ///
    /// The error says where it leads instead, in words that fit behind the path.
    pub fn follow(&self, path: &Path) -> Result<fs::Metadata, String> {
        let link = self.model.join(path);
        let shown = fs::read_link(&link).map_err(|e| format!("cannot be read: {e}"))?;
        match self.blob(&link, &shown) {
            Some(data) => Ok(data),
            None => self.resolve(&link, &shown),
        }
    }

    /// The blob that a link shows if all is as huggingface_hub lays it out, which takes a look or
    /// two at the disk and not one for every directory on the way.
    fn blob(&self, link: &Path, shown: &Path) -> Option<fs::Metadata> {
        let blobs = self.blobs.as_deref().filter(|_| self.direct)?;
        let blob = plain(&link.parent()?.join(shown))?;
        let data = (blob.parent() == Some(blobs)).then(|| fs::symlink_metadata(&blob).ok())??;
        if !data.is_symlink() {
            return Some(data);
        }
        let payload = plain(&blobs.join(fs::read_link(&blob).ok()?))?;
        let prefix = payload.parent()?;
        if prefix.parent() != self.store.as_deref() || !is_directory(prefix) {
            return None;
        }
        fs::symlink_metadata(payload).ok().filter(|data| !data.is_symlink())
    }

    /// The same for any link, by what the system says its path comes to.
    fn resolve(&self, link: &Path, shown: &Path) -> Result<fs::Metadata, String> {
        let shown = shown.display();
        let target = match link.canonicalize() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(format!("links to {shown}, which is not there"));
            }
            target => target.map_err(|e| format!("links to {shown}: {e}"))?,
        };
        let mut roots =
            [self.blobs.as_deref(), self.store.as_deref(), Some(self.model)].into_iter();
        let holds = |root: &Path| root.canonicalize().is_ok_and(|root| target.starts_with(root));
        if !roots.any(|root| root.is_some_and(holds)) {
            let place = if self.blobs.is_some() { "cache" } else { "workspace" };
            return Err(format!("links to {shown}, outside the {place}"));
        }
        fs::metadata(&target).map_err(|e| format!("links to {shown}: {e}"))
    }
}

/// True for a directory that is no link to one.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// The path without its `..`; right only where no directory on the way is a link.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => plain.pop().then_some(())?,
            part => plain.push(part),
        }
    }
    Some(plain)
}
