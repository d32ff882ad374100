//! Workspaces: directories of the user that hold a model as plain files.

pub mod clean;
pub mod content_hash;
pub mod reindex;
pub mod remake;
pub mod sentinel;
pub mod staging;
pub mod stamp;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf, absolute};

use crate::error::{Error, Result};
use crate::store::cache::is_hidden;
use crate::store::directory::entries;
use crate::store::{Found, Origin, Places};

/// A directory with a `config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The name of the directory.
    pub name: String,
    /// The absolute path of the directory.
    pub path: PathBuf,
}

impl From<Workspace> for Found {
    fn from(workspace: Workspace) -> Found {
        Found {
            name: workspace.path.to_string_lossy().into_owned(),
            path: workspace.path,
            revision: None,
            origin: Origin::Workspace,
        }
    }
}

/// The workspaces of the workspace home, sorted by name.
pub fn home(places: &Places) -> Result<Vec<Workspace>> {
    places.workspaces.as_deref().map_or(Ok(Vec::new()), children)
}

/// The workspace at `path`, if `path` is one.
pub fn at(path: &Path) -> Result<Option<Workspace>> {
    let path = plain(path)?;
    Ok(is_workspace(&path).then(|| Workspace { name: file_name(&path), path }))
}

/// The workspaces that the explicit path `pattern` selects: the workspace itself, the children of
/// the directory, or the siblings whose names begin with its last part.
pub(crate) fn under(pattern: &Path) -> Result<Vec<Workspace>> {
    match at(pattern)? {
        Some(workspace) => Ok(vec![workspace]),
        None if pattern.is_dir() => children(pattern),
        None => siblings(pattern),
    }
}

/// The last part of `path`, as text.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The workspaces directly below `directory`, sorted by name; empty if it does not exist.
fn children(directory: &Path) -> Result<Vec<Workspace>> {
    let mut children = Vec::new();
    for (name, path) in entries(&plain(directory)?)? {
        if !is_hidden(&name) && is_workspace(&path) {
            children.push(Workspace { name, path });
        }
    }
    children.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(children)
}

fn siblings(pattern: &Path) -> Result<Vec<Workspace>> {
    let path = plain(pattern)?;
    let prefix = file_name(&path);
    let mut siblings = path.parent().map_or(Ok(Vec::new()), children)?;
    siblings.retain(|workspace| workspace.name.starts_with(&prefix));
    Ok(siblings)
}

/// True if `path` is a directory with a `config.json`, or one that may have it and cannot be entered.
fn is_workspace(path: &Path) -> bool {
    match fs::metadata(path.join("config.json")) {
        Ok(config) => config.is_file(),
        Err(e) => e.kind() == ErrorKind::PermissionDenied && path.is_dir(),
    }
}

/// The absolute path, links and dots resolved as far as the path exists.
fn plain(path: &Path) -> Result<PathBuf> {
    path.canonicalize().or_else(|_| absolute(path)).map_err(|e| Error::io(path, e))
}
