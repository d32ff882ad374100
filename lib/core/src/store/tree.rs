//! `trees/COMMIT.json`: the Hub's list of the files of a revision, which huggingface_hub 2 stores
//! beside the snapshots.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::regular_file::read_small;

/// The supported version of the format; lists of other versions are ignored.
const VERSION: u64 = 1;

/// The maximum size of a list in bytes.
const MAX_TREE: u64 = 64 << 20;

/// The list of a revision's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    format_version: u64,
    /// The files by path, relative to the model.
    pub files: BTreeMap<String, Entry>,
}

/// A file in the Hub's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The size in bytes of the file in Git: the content, or the pointer of a file in LFS.
    pub size: u64,
    /// The Git blob id of the content, or of the pointer of a file in LFS.
    pub blob_id: String,
    /// The SHA-256 of the content of a file in LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_sha256: Option<String>,
    /// The size in bytes of the content of a file in LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs_size: Option<u64>,
    /// The hash of the content in Xet storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xet_hash: Option<String>,
}

impl Tree {
    /// A list of `files` in the supported version.
    pub fn new(files: BTreeMap<String, Entry>) -> Tree {
        Tree { format_version: VERSION, files }
    }

    /// The list of the revision `commit` in the directory `repo` of a cached model; none if it is absent
    /// or unreadable, since the names of the blobs are enough to go on.
    pub fn read(repo: &Path, commit: &str) -> Option<Tree> {
        let text = read_small(&Tree::path(repo, commit), MAX_TREE).ok()?;
        let tree: Tree = serde_json::from_slice(&text).ok()?;
        (tree.format_version == VERSION).then_some(tree)
    }

    /// The path of the list of the revision `commit`.
    pub fn path(repo: &Path, commit: &str) -> PathBuf {
        repo.join("trees").join(format!("{commit}.json"))
    }
}

impl Entry {
    /// The digest of the content; none if the list states none.
    pub fn digest(&self) -> Option<Digest> {
        self.lfs_sha256.as_deref().unwrap_or(&self.blob_id).parse().ok()
    }

    /// The size of the content in bytes.
    pub fn bytes(&self) -> u64 {
        self.lfs_size.unwrap_or(self.size)
    }
}
