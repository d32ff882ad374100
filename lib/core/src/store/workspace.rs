//! Workspaces: directories of the user's own that hold a model as plain files.

use std::path::{Path, PathBuf, absolute};

use super::{Found, Listed, Origin, Places, cache, is_hidden};
use crate::error::{Error, Result};

/// A directory with a `config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The name of the directory.
    pub name: String,
    /// The directory, as an absolute path.
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

/// The workspaces of the user's workspace home, sorted by name.
pub fn home(places: &Places) -> Result<Vec<Workspace>> {
    places.workspaces.as_deref().map_or(Ok(Vec::new()), children)
}

/// The workspace at `path`, if there is one.
pub fn at(path: &Path) -> Result<Option<Workspace>> {
    let path = plain(path)?;
    Ok(is_workspace(&path).then(|| Workspace { name: file_name(&path), path }))
}

/// The workspaces directly below `directory`, sorted by name; none if there is no such directory.
fn children(directory: &Path) -> Result<Vec<Workspace>> {
    let mut children = Vec::new();
    for (name, path) in cache::entries(&plain(directory)?)? {
        if !is_hidden(&name) && is_workspace(&path) {
            children.push(Workspace { name, path });
        }
    }
    children.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(children)
}

/// The workspaces that the explicit path `pattern` selects: it itself, its children, or those of
/// its siblings whose names begin like it.
pub(super) fn under(pattern: &Path) -> Result<Vec<Listed>> {
    let found = match at(pattern)? {
        Some(workspace) => vec![workspace],
        None if pattern.is_dir() => children(pattern)?,
        None => siblings(pattern)?,
    };
    let listed = found.into_iter().map(|workspace| {
        let shown = if pattern.is_absolute() {
            workspace.path.to_string_lossy().into_owned()
        } else {
            workspace.name.clone()
        };
        Listed { found: workspace.into(), display_name: Some(shown) }
    });
    Ok(listed.collect())
}

fn siblings(pattern: &Path) -> Result<Vec<Workspace>> {
    let path = plain(pattern)?;
    let beginning = file_name(&path);
    let mut siblings = path.parent().map_or(Ok(Vec::new()), children)?;
    siblings.retain(|workspace| workspace.name.starts_with(&beginning));
    Ok(siblings)
}

/// The last part of `path`, made readable.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn is_workspace(path: &Path) -> bool {
    path.join("config.json").is_file()
}

/// The absolute path, links and dots resolved as far as the path exists.
fn plain(path: &Path) -> Result<PathBuf> {
    path.canonicalize().or_else(|_| absolute(path)).map_err(|e| Error::io(path, e))
}
