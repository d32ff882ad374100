//! A workspace under construction: it lies beside its place and gets its name when it is whole.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};

use tempfile::TempDir;

use crate::digest::Hasher;
use crate::error::{Error, Kind, Result};
use crate::store::Places;
use crate::store::directory::entries;

/// A directory that is not yet what it shall be.
#[derive(Debug)]
pub struct Staging {
    directory: Directory,
    target: PathBuf,
}

#[derive(Debug)]
enum Directory {
    /// It vanishes with this value unless it was published.
    Fleeting(TempDir),
    /// It stays until it is published.
    Lasting(PathBuf),
}

impl Staging {
    /// Begins a workspace that shall be `target`: nothing, or an empty directory, in one that exists.
    ///
    /// A bare name is meant to lie in the workspace home. Inside the cache there are no workspaces.
    pub fn new(target: &Path, places: &Places) -> Result<Staging> {
        let (target, parent, name) = place(target, places)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".tmp")
            .permissions(Permissions::from_mode(0o777)) // less the umask, as for any new directory
            .tempdir_in(&parent)
            .map_err(|e| Error::io(&parent, e))?;
        Ok(Staging { directory: Directory::Fleeting(directory), target })
    }

    /// An error where no workspace could become `target`.
    pub fn check(target: &Path, places: &Places) -> Result<()> {
        place(target, places).map(|_| ())
    }

    /// Begins such a workspace out of `source`, or goes on with what an earlier run has left of it.
    pub fn lasting(target: &Path, source: &str, places: &Places) -> Result<Staging> {
        let (target, parent, name) = place(target, places)?;
        let mut hasher = Hasher::sha256();
        hasher.update(format!("{source}:{}", target.display()).as_bytes());
        let directory = parent.join(format!(".{name}.{:.16}.part", hasher.finish().to_string()));
        match fs::create_dir(&directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(&directory, e)),
            _ if directory.is_symlink() || !directory.is_dir() => {
                Err(refuse(&directory, "exists and is not a directory"))
            }
            _ => Ok(Staging { directory: Directory::Lasting(directory), target }),
        }
    }

    /// What earlier runs have left of the same workspace out of other sources.
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

    /// The directory to fill.
    pub fn path(&self) -> &Path {
        match &self.directory {
            Directory::Fleeting(directory) => directory.path(),
            Directory::Lasting(directory) => directory,
        }
    }

    /// The directory that it will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the workspace its name, and the place of an empty directory of that name.
    pub fn publish(self) -> Result<PathBuf> {
        fs::rename(self.path(), &self.target).map_err(|e| Error::io(&self.target, e))?;
        if let Directory::Fleeting(directory) = self.directory {
            // Nothing is left under the name that would be removed.
            let _ = directory.keep();
        }
        Ok(self.target)
    }
}

/// True if `path`, its links resolved, lies in the cache or anywhere below `HF_HOME`.
pub fn in_cache(path: &Path, places: &Places) -> bool {
    // A cache that does not exist yet holds no directory either.
    let resolved = |cache: &Path| cache.canonicalize().unwrap_or_else(|_| cache.to_owned());
    [&places.root, &places.hub].iter().any(|cache| path.starts_with(resolved(cache)))
}

/// Errors if `found`, its links resolved, lies in the cache: that is no source for other programs.
pub fn check_source(found: &Path, places: &Places) -> Result<()> {
    if !in_cache(found, places) {
        return Ok(());
    }
    Err(refuse(found, "lies inside the Hugging Face cache")
        .hint("the cache is the downloads' own: `mlxk-clone` makes a workspace of it first"))
}

/// The absolute path of a new workspace, where that can be one; the directory it lies in, and its name.
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
    for cache in [&places.root, &places.hub] {
        // A cache that does not exist yet holds no directory either.
        let cache = cache.canonicalize().unwrap_or_else(|_| cache.clone());
        if target.starts_with(cache) {
            return Err(refuse(&target, "lies inside the Hugging Face cache")
                .hint("the cache is the downloads' own: choose a directory outside it"));
        }
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
    Error::new(Kind::InvalidTarget, target.display().to_string(), what)
}

/// A name without any separator belongs into the workspace home, if there is one.
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
    #![allow(clippy::unwrap_used)] // a test fails by panicking

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
    fn nothing_is_left_of_one_that_is_given_up() {
        let root = TempDir::new().unwrap();
        let places = places(root.path());
        let empty = root.path().join("ws/empty");
        fs::create_dir(&empty).unwrap();
        drop(Staging::new(&empty, &places).unwrap());
        assert_eq!(fs::read_dir(root.path().join("ws")).unwrap().count(), 1);
        assert!(empty.exists());
    }

    #[test]
    fn a_lasting_one_is_found_again() {
        let root = TempDir::new().unwrap();
        let places = places(root.path());
        let begin = |source| Staging::lasting("mine".as_ref(), source, &places).unwrap();
        fs::write(begin("org/a").path().join("config.json"), "{}").unwrap();
        assert!(!begin("org/b").path().join("config.json").exists(), "another source");
        assert_eq!(begin("org/b").siblings().unwrap(), [begin("org/a").path()]);
        let target = begin("org/a").publish().unwrap();
        assert!(target.join("config.json").exists());
        assert!(Staging::lasting("mine".as_ref(), "org/a", &places).is_err());
    }

    #[test]
    fn places_that_are_taken_or_forbidden_are_refused() {
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
