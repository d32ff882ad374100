//! What transfers of models have in common: the check of a call, the selection of files, and lists
//! of them in records and text.

use mlxk_cli::{FileFlags, HubName, human};
use mlxk_core::{Kind, Places, Record, Result};
use mlxk_hub::pull::FileFilter;
use mlxk_hub::{RemoteFile, safe_path};
use serde_json::{Value, json};

/// Checks that the typed `names` can be those of models on the Hub.
///
/// # Errors
/// If a name is a path or no name, or there are two revisions: the call is wrong, and nothing is done.
pub fn check(names: &[String], flags: &FileFlags, places: &Places) -> Result<()> {
    for name in names.iter().filter(|name| *name != "-") {
        let record = Record::default().with("name", &**name);
        match HubName::of(&record, flags.branch.as_deref(), places) {
            Ok(wanted) => {
                safe_path::check_id(&wanted.id)?;
                safe_path::check_revision(wanted.revision())?;
            }
            // What the cache has of that name is told when its turn comes.
            Err(e) if e.kind == Kind::AmbiguousMatch => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

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
