//! The hub cache, and what its programs need of the file system: locks, atomic writes, copies.

pub(crate) mod activity;
pub mod atomic_write;
pub mod cache;
pub mod copy;
pub mod deletion;
pub(crate) mod directory;
pub mod disk_space;
pub mod lock;
pub mod prune;
pub mod remove;
pub mod shared;
pub mod tree;

use std::path::PathBuf;

/// The directories that hold models.
#[derive(Clone, Debug)]
pub struct Places {
    /// The root directory of Hugging Face's files, `HF_HOME`.
    pub root: PathBuf,
    /// The cache of models, `HF_HUB_CACHE`.
    pub hub: PathBuf,
    /// The directory whose children are workspaces, `MLXK_WORKSPACE_HOME`.
    pub workspaces: Option<PathBuf>,
}

/// A model on disk, found; later stages take this value and no longer a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The model's name: `org/name`, or the absolute path of a workspace.
    pub name: String,
    /// The directory that holds the model's files: a snapshot or a workspace.
    ///
    /// For a cached model without a snapshot this is its `snapshots` directory, which may not exist:
    /// the rest of the model takes space and can be removed.
    pub path: PathBuf,
    /// The name of the snapshot directory: a commit hash.
    pub revision: Option<String>,
    /// The kind of place that the model lies in.
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
    /// A directory of the user.
    Workspace,
}

/// The snapshots of a cached model that a listing includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revisions {
    /// The revision that a bare name means: `refs/main`, else the newest.
    Current,
    /// Every revision.
    All,
}
