//! Changes of a commit: the files it adds, replaces and deletes.

use super::local::LocalFile;

/// Change of one file in a commit.
#[derive(Debug)]
pub struct Change<'a> {
    /// Path in the repository.
    pub path: &'a str,
    /// New content, or deletion.
    pub content: Content<'a>,
}

/// New content of a file in a commit.
#[derive(Debug)]
pub enum Content<'a> {
    /// Content that is embedded in the commit.
    Small {
        /// Local file.
        file: &'a LocalFile,
        /// Git blob id of the content.
        blob_id: String,
    },
    /// Content in LFS storage.
    Large {
        /// Local file.
        file: &'a LocalFile,
        /// SHA-256 of the content, its LFS object id.
        sha256: String,
    },
    /// Deletion of the file.
    Deleted,
}

impl Content<'_> {
    /// Digest that the Hub will list for the file; `None` if it is deleted.
    pub fn etag(&self) -> Option<&str> {
        match self {
            Content::Small { blob_id, .. } => Some(blob_id),
            Content::Large { sha256, .. } => Some(sha256),
            Content::Deleted => None,
        }
    }
}
