//! Flags that choose a revision of a model and files of it.

use clap::Args;

/// Flags of a revision, and of files in it.
#[derive(Args, Clone, Debug)]
pub struct FileFlags {
    /// Branch, tag or commit, the same as MODEL@NAME
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Only files that match, such as *.json; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Exclude files that match; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
}
