//! `trees/COMMIT.json`: the Hub's own list of the files of a revision, which huggingface_hub 2 keeps
//! beside the snapshots. A commit never changes, so neither does its list.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The version of the format described here; a list in another one is not read.
const VERSION: u64 = 1;

/// The files of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    format_version: u64,
    /// By path, relative to the model.
    pub files: BTreeMap<String, Entry>,
}

/// What the Hub says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Bytes.
    pub size: u64,
    /// The id in Git: of the content, or of the pointer to a file in LFS.
    pub blob_id: String,
    /// The SHA-256 of a file in LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_sha256: Option<String>,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_size: Option<u64>,
    /// Its name in Xet storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xet_hash: Option<String>,
}

impl Tree {
    /// The list of `files`.
    pub fn new(files: BTreeMap<String, Entry>) -> Tree {
        Tree { format_version: VERSION, files }
    }

    /// The list that is kept in the directory `repo` for the revision `commit`; none if there is
    /// none that can be read. It is a copy: without it there are still the names of the blobs.
    pub fn read(repo: &Path, commit: &str) -> Option<Tree> {
        let text = fs::read(Tree::path(repo, commit)).ok()?;
        let tree: Tree = serde_json::from_slice(&text).ok()?;
        (tree.format_version == VERSION).then_some(tree)
    }

    /// Where it is kept.
    pub fn path(repo: &Path, commit: &str) -> PathBuf {
        repo.join("trees").join(format!("{commit}.json"))
    }
}

impl Entry {
    /// What the content is called after; none if the list does not say.
    pub fn digest(&self) -> Option<Digest> {
        self.lfs_sha256.as_deref().unwrap_or(&self.blob_id).parse().ok()
    }

    /// The size of the content.
    pub fn bytes(&self) -> u64 {
        self.lfs_size.unwrap_or(self.size)
    }
}
