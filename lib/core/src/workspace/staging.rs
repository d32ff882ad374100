//! Staging of a new workspace: a directory that is renamed to its target when it is complete.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};

use tempfile::TempDir;

use crate::digest::Hasher;
use crate::error::{Error, Kind, Result};
use crate::store::Places;
use crate::store::directory::entries;

/// The staging directory of a workspace.
#[derive(Debug)]
pub struct Staging {
    directory: Directory,
    target: PathBuf,
}

#[derive(Debug)]
enum Directory {
    /// A directory that is removed when the value is dropped, unless it was published.
    Temporary(TempDir),
    /// A directory that a later run continues.
    Persistent(PathBuf),
}

impl Staging {
    /// Creates a temporary staging directory for the workspace `target`.
    ///
    /// A target without a separator is a workspace of the workspace home.
    ///
    /// # Errors
    /// `InvalidTarget` if the target exists and is not an empty directory, its parent does not exist, or
    /// it is inside the cache.
    pub fn new(target: &Path, places: &Places) -> Result<Staging> {
        let (target, parent, name) = place(target, places)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".tmp")
            .permissions(Permissions::from_mode(0o777)) // before the umask, as for any new directory
            .tempdir_in(&parent)
            .map_err(|e| Error::io(&parent, e))?;
        Ok(Staging { directory: Directory::Temporary(directory), target })
    }

    /// Checks that a workspace `target` can be created.
    ///
    /// # Errors
    /// See [`Staging::new`].
    pub fn check(target: &Path, places: &Places) -> Result<()> {
        place(target, places).map(|_| ())
    }

    /// Creates a persistent staging directory for the workspace `target` made from `source`, or opens
    /// the one that an earlier run left.
    ///
    /// # Errors
    /// See [`Staging::new`].
    pub fn persistent(target: &Path, source: &str, places: &Places) -> Result<Staging> {
        let (target, parent, name) = place(target, places)?;
        let mut hasher = Hasher::sha256();
        hasher.update(format!("{source}:{}", target.display()).as_bytes());
        let directory = parent.join(format!(".{name}.{:.16}.part", hasher.finish().to_string()));
        match fs::create_dir(&directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(&directory, e)),
            _ if directory.is_symlink() || !directory.is_dir() => {
                Err(refuse(&directory, "exists and is not a directory"))
            }
            _ => Ok(Staging { directory: Directory::Persistent(directory), target }),
        }
    }

    /// The persistent staging directories for the same target made from other sources.
    pub fn siblings(&self) -> Result<Vec<PathBuf>> {
        let parent = self.target.parent().unwrap_or(&self.target);
        let beginning = format!(".{}.", super::file_name(&self.target));
        let is_one = |name: &str| {
            let hash = name.strip_prefix(&*beginning).and_then(|rest| rest.strip_suffix(".part"));
            hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|c| c.is_ascii_hexdigit()))
        };
        let left =
            entries(parent)?.into_iter().filter(|(name, path)| is_one(name) && path != self.path());
        Ok(left.map(|(_, path)| path).filter(|path| path.is_dir() && !path.is_symlink()).collect())
    }

    /// The staging directory, to be filled.
    pub fn path(&self) -> &Path {
        match &self.directory {
            Directory::Temporary(directory) => directory.path(),
            Directory::Persistent(directory) => directory,
        }
    }

    /// The path of the workspace to be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Renames the staging directory to the target, replacing an empty directory, and returns its path.
    pub fn publish(self) -> Result<PathBuf> {
        fs::rename(self.path(), &self.target).map_err(|e| Error::io(&self.target, e))?;
        if let Directory::Temporary(directory) = self.directory {
            // The name is free since the rename, so nothing must be removed.
            let _ = directory.keep();
        }
        Ok(self.target)
    }
}

/// True if `path`, whose links are resolved, is in the cache or below `HF_HOME`.
pub fn in_cache(path: &Path, places: &Places) -> bool {
    // A cache that does not exist has no links to resolve.
    let resolved = |cache: &Path| cache.canonicalize().unwrap_or_else(|_| cache.to_owned());
    [&places.root, &places.hub].iter().any(|cache| path.starts_with(resolved(cache)))
}

/// Checks that the source `found`, whose links are resolved, is not in the cache.
///
/// # Errors
/// `InvalidTarget` if it is.
pub fn check_source(found: &Path, places: &Places) -> Result<()> {
    if !in_cache(found, places) {
        return Ok(());
    }
    Err(refuse(found, "lies inside the Hugging Face cache")
        .hint("the cache is the downloads' own: `mlxk-clone` makes a workspace of it first"))
}

/// The absolute path of a new workspace, its parent directory and its name.
fn place(target: &Path, places: &Places) -> Result<(PathBuf, PathBuf, String)> {
    let target = absolute(homed(target, places)).map_err(|e| Error::io(target, e))?;
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(refuse(&target, "not a directory that could be created"));
    };
    let parent = parent.canonicalize().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            refuse(&target, "the directory to create it in does not exist").caused_by(e)
        }
        _ => Error::io(parent, e),
    })?;
    let target = parent.join(name);
    if in_cache(&target, places) {
        return Err(refuse(&target, "lies inside the Hugging Face cache")
            .hint("the cache is the downloads' own: choose a directory outside it"));
    }
    match fs::symlink_metadata(&target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(&target, e)),
        Ok(data) if !data.is_dir() => {
            return Err(refuse(&target, "exists and is not a directory"));
        }
        Ok(_) if !is_empty(&target)? => return Err(refuse(&target, "exists and is not empty")),
        Ok(_) => {}
    }
    let name = name.to_string_lossy().into_owned();
    Ok((target, parent, name))
}

fn refuse(target: &Path, what: &str) -> Error {
    Error::at(Kind::InvalidTarget, target, what)
}

/// The path of `target`: a name without a separator is in the workspace home, if that exists.
pub fn homed(target: &Path, places: &Places) -> PathBuf {
    let bare = target.components().count() == 1 && target.file_name() == Some(target.as_os_str());
    match &places.workspaces {
        Some(home) if bare && home.is_dir() => home.join(target),
        _ => target.to_owned(),
    }
}

fn is_empty(directory: &Path) -> Result<bool> {
    let at = |e| Error::io(directory, e);
    Ok(fs::read_dir(directory).map_err(at)?.next().transpose().map_err(at)?.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        let path = |name: &str| {
            fs::create_dir_all(root.join(name)).unwrap();
            root.join(name)
        };
        Places { root: path("hf"), hub: path("hf/hub"), workspaces: Some(path("ws")) }
    }

    fn refused(target: &Path, places: &Places) -> String {
        Staging::new(target, places).unwrap_err().message
    }

    #[test]
    fn a_workspace_appears_only_when_it_is_published() {
        let root = TempDir::new().unwrap();
        let places = places(root.path());
        let staging = Staging::new("mine".as_ref(), &places).unwrap();
        fs::write(staging.path().join("config.json"), "{}").unwrap();
        let target = root.path().canonicalize().unwrap().join("ws/mine");
        assert!(!target.exists());
        assert_eq!(staging.publish().unwrap(), target);
        assert!(target.join("config.json").exists());
        assert_eq!(fs::read_dir(root.path().join("ws")).unwrap().count(), 1);
    }

    #[test]
    fn a_dropped_staging_directory_is_removed() {
        let root = TempDir::new().unwrap();
        let places = places(root.path());
        let empty = root.path().join("ws/empty");
        fs::create_dir(&empty).unwrap();
        drop(Staging::new(&empty, &places).unwrap());
        assert_eq!(fs::read_dir(root.path().join("ws")).unwrap().count(), 1);
        assert!(empty.exists());
    }

    #[test]
    fn a_persistent_staging_directory_is_found_again() {
        let root = TempDir::new().unwrap();
        let places = places(root.path());
        let begin = |source| Staging::persistent("mine".as_ref(), source, &places).unwrap();
        fs::write(begin("org/a").path().join("config.json"), "{}").unwrap();
        assert!(!begin("org/b").path().join("config.json").exists(), "another source");
        assert_eq!(begin("org/b").siblings().unwrap(), [begin("org/a").path()]);
        let target = begin("org/a").publish().unwrap();
        assert!(target.join("config.json").exists());
        assert!(Staging::persistent("mine".as_ref(), "org/a", &places).is_err());
    }

    #[test]
    fn targets_that_are_taken_or_in_the_cache_are_refused() {
        let root = TempDir::new().unwrap();
        let places = places(root.path());
        let at = |name: &str| root.path().join(name);
        assert!(refused(&at("hf/hub/x"), &places).contains("inside the Hugging Face cache"));
        assert!(refused(&at("hf"), &places).contains("inside the Hugging Face cache"));
        std::os::unix::fs::symlink(at("hf"), at("link")).unwrap();
        assert!(refused(&at("link/x"), &places).contains("inside the Hugging Face cache"));
        fs::create_dir_all(at("full/x")).unwrap();
        assert!(refused(&at("full"), &places).contains("not empty"));
        fs::write(at("file"), "").unwrap();
        assert!(refused(&at("file"), &places).contains("not a directory"));
        assert!(refused(&at("no/where"), &places).contains("does not exist"));
    }
}
