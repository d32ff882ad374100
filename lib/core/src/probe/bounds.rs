//! The bounds that the links of a model must not leave.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::store::{Found, Origin};

/// The directories that may hold the targets of a model's links.
///
/// Links of a workspace stay inside the workspace. A snapshot in the cache links to the `blobs` of
/// its model, and since huggingface_hub 2 these may link to the store that all models share.
pub struct Bounds<'a> {
    model: &'a Path,
    /// The `blobs` directory of a cached model.
    blobs: Option<PathBuf>,
    /// The store of blobs that all models of the cache share.
    store: Option<PathBuf>,
    /// True if no directory between snapshot and blobs is a link, so that `..` can be resolved as text.
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

    /// The metadata of the file at the end of the link `path`, which is relative to the model.
    ///
    /// # Errors
    /// If the link is broken or leaves the bounds; the message continues a sentence that begins with
    /// the path.
    pub fn follow(&self, path: &Path) -> Result<fs::Metadata, String> {
        let link = self.model.join(path);
        let shown = fs::read_link(&link).map_err(|e| format!("cannot be read: {e}"))?;
        match self.blob(&link, &shown) {
            Some(data) => Ok(data),
            None => self.resolve(&link, &shown),
        }
    }

    /// The metadata of the blob behind a link in the layout of huggingface_hub.
    ///
    /// This shortcut needs one or two system calls, instead of one for each directory of the path.
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

    /// The metadata of the file behind any link, by the path that the system resolves it to.
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

/// True if `path` is a directory and not a link.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|data| data.is_dir())
}

/// The path with each `..` resolved as text, which is correct only if no directory in it is a link.
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
