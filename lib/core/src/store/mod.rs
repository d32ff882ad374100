//! Where models lie: the hub cache and the folders of workspaces.

use std::path::PathBuf;

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
#[derive(Clone, Debug)]
pub struct Found {
    /// `org/name`, or the absolute path of a workspace.
    pub name: String,
    /// The directory that holds the model's files: a snapshot or a workspace.
    pub path: PathBuf,
    /// The name of the snapshot directory.
    pub revision: Option<String>,
    /// What kind of place the model lies in.
    pub origin: Origin,
}

/// The kind of place that a model lies in.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The hub cache.
    Cache {
        /// The directory `models--org--name` that holds `snapshots` and `blobs`.
        repo: PathBuf,
    },
    /// A directory of the user's own.
    Workspace,
}
