//! Where models lie: the hub cache and the folders of workspaces.

pub mod cache;
pub mod copy;
pub mod deletion;
pub mod lock;
pub(crate) mod locks;
pub mod place;
pub mod remake;
pub mod room;
pub mod sentinel;
pub mod shared;
pub mod staging;
pub mod stamp;
pub mod tree;
pub mod workspace;

use std::path::PathBuf;

use crate::error::Result;

/// The directories in which models are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// The root of everything, `HF_HOME`.
    pub root: PathBuf,
    /// The cache of models, `HF_HUB_CACHE`.
    pub hub: PathBuf,
    /// The folder whose children are workspaces, `MLXK_WORKSPACE_HOME`.
    pub workspaces: Option<PathBuf>,
}

/// A model on disk, found; from here on nobody takes a name again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `org/name`, or the absolute path of a workspace.
    pub name: String,
    /// The directory that holds the model's files: a snapshot or a workspace.
    ///
    /// A cached model of which no snapshot exists has its `snapshots` directory here, there or not:
    /// what was left of it takes space and can be removed.
    pub path: PathBuf,
    /// The name of the snapshot directory.
    pub revision: Option<String>,
    /// What kind of place the model lies in.
    pub origin: Origin,
}

/// The kind of place that a model lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The hub cache.
    Cache {
        /// The directory `models--org--name` that holds `snapshots` and `blobs`.
        repo: PathBuf,
    },
    /// A directory of the user's own.
    Workspace,
}

/// Which snapshots of a cached model count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revisions {
    /// The one that a bare name means: `refs/main`, else the newest.
    Current,
    /// Every one.
    All,
}

/// A model of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The model.
    pub found: Found,
    /// How a listing names a workspace: as the pattern did, absolute or relative to where it looked.
    pub display_name: Option<String>,
}

/// Every model of `places`: workspaces, then cached models, each sorted by name.
///
/// A place that does not exist holds nothing.
pub fn list(places: &Places, revisions: Revisions) -> Result<Vec<Found>> {
    let mut all: Vec<Found> = workspace::home(places)?.into_iter().map(Into::into).collect();
    for repo in cache::repos(&places.hub)? {
        all.extend(repo.found(revisions));
    }
    Ok(all)
}

/// The models of `places` that `pattern` selects; the empty pattern selects all.
///
/// A pattern that is an explicit path names a workspace, a folder of workspaces, or the beginning
/// of the names of some; every other one is part of a name in any case, with the beginning of a
/// revision behind an `@`.
pub fn matching(places: &Places, pattern: &str, revisions: Revisions) -> Result<Vec<Listed>> {
    if crate::spec::is_path(pattern) {
        return workspace::under(pattern.as_ref());
    }
    let (part, revision) = match pattern.rsplit_once('@') {
        Some((part, revision)) => (part, Some(revision)),
        None => (pattern, None),
    };
    let revisions = if revision.is_some() { Revisions::All } else { revisions };
    let mut selected = Vec::new();
    for found in list(places, revisions)? {
        let (name, display_name) = match found.origin {
            Origin::Cache { .. } => (found.name.clone(), None),
            Origin::Workspace => {
                let name = workspace::file_name(&found.path);
                (name.clone(), Some(name))
            }
        };
        if contains(&name, part) && starts(found.revision.as_deref(), revision)
            || contains(&name, pattern)
        {
            selected.push(Listed { found, display_name });
        }
    }
    Ok(selected)
}

/// True if `part` occurs in `name`, whatever the case of its letters.
pub(crate) fn contains(name: &str, part: &str) -> bool {
    name.to_lowercase().contains(&part.to_lowercase())
}

/// True if no beginning is asked for, or the text has it.
fn starts(text: Option<&str>, beginning: Option<&str>) -> bool {
    beginning.is_none_or(|beginning| text.is_some_and(|text| text.starts_with(beginning)))
}

/// Directories that test suites of the cache leave behind carry this in their name and stay unseen.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.contains("TEST-CACHE-SENTINEL")
}
