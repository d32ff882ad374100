//! Flags that mlxk-pull and mlxk-clone share: the revision and files of a model.

use clap::Args;
use mlxk_hub::pull::FileFilter;

/// Revision and file selection of a model.
#[derive(Args, Clone, Debug)]
pub struct Part {
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

impl Part {
    /// Selection of files by `include` and `exclude`.
    pub fn choice(&self) -> FileFilter {
        FileFilter { include: self.include.clone(), exclude: self.exclude.clone() }
    }
}
