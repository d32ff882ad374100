//! Flags that choose a revision of a model and files of it.

use clap::Args;

/// Flags of a revision, and of files in it.
#[derive(Args, Clone, Debug)]
pub struct FileFlags {
    /// The branch, tag or commit, as behind an @
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Only files that match, as *.json does; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// No files that match; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
}
