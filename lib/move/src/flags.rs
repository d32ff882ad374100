//! What of a model is meant: the flags that mlxk-pull and mlxk-clone share.

use clap::Args;
use mlxk_hub::pull::FileFilter;

/// A revision, and files of it.
#[derive(Args, Clone, Debug)]
pub struct Part {
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

impl Part {
    /// The files.
    pub fn choice(&self) -> FileFilter {
        FileFilter { include: self.include.clone(), exclude: self.exclude.clone() }
    }
}
