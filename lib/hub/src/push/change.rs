//! A file that a commit changes, and how.

use super::local::LocalFile;

/// A file that a commit changes.
#[derive(Debug)]
pub struct Change<'a> {
    /// Its name on the Hub.
    pub path: &'a str,
    /// What becomes of it.
    pub content: Content<'a>,
}

/// What a commit does with a file.
#[derive(Debug)]
pub enum Content<'a> {
    /// Its content stands in the commit.
    Small {
        /// The file.
        file: &'a LocalFile,
        /// What Git will call it.
        blob_id: String,
    },
    /// Its content is in the storage for large files.
    Large {
        /// The file.
        file: &'a LocalFile,
        /// What the storage calls it.
        sha256: String,
    },
    /// It goes.
    Deleted,
}

impl Content<'_> {
    /// What the Hub will know the content by; none if it goes.
    pub fn etag(&self) -> Option<&str> {
        match self {
            Content::Small { blob_id, .. } => Some(blob_id),
            Content::Large { sha256, .. } => Some(sha256),
            Content::Deleted => None,
        }
    }
}
