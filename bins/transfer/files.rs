//! Files of a transfer: their selection, and lists of them in records and text.

use mlxk_cli::{FileFlags, human};
use mlxk_hub::RemoteFile;
use mlxk_hub::pull::FileFilter;
use serde_json::{Value, json};

/// Filter that the flags state.
pub fn filter(flags: &FileFlags) -> FileFilter {
    FileFilter { include: flags.include.clone(), exclude: flags.exclude.clone() }
}

/// Paths and sizes of `files`.
pub fn named<'f>(files: impl Iterator<Item = &'f RemoteFile>) -> Vec<(String, u64)> {
    files.map(|file| (file.path.clone(), file.size)).collect()
}

/// List of files in a record: `{path, size_bytes}` of each.
pub fn listed(files: &[(String, u64)]) -> Vec<Value> {
    files.iter().map(|(path, size)| json!({"path": path, "size_bytes": size})).collect()
}

/// List of files as text, a line for each.
pub fn lines(files: &[(String, u64)]) -> String {
    files.iter().map(|(path, size)| format!("  {:>8}  {path}\n", human::size(*size))).collect()
}
