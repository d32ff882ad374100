//! Comparison of a workspace with its content hash, mostly by sizes and times of files.

use std::collections::BTreeMap;
use std::path::Path;

use super::content_hash::{self, Entry, Item};
use super::sentinel::Sentinel;
use crate::error::{Error, Kind, Result};

/// The result of the comparison of a workspace with its sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// True if the workspace is unchanged.
    pub clean: bool,
    /// The content hash of the current files; none if the workspace can no longer be hashed.
    pub content_hash: Option<String>,
}

/// Compares the workspace `path` with its sentinel; none without a sentinel that is valid and has a
/// hash of version 2.
///
/// A file with the recorded size and time counts as unchanged. A file with another time is read, and
/// if its content is the same the new time is recorded in the sentinel.
pub fn check(path: &Path) -> Option<State> {
    let Baseline { mut sentinel, index, exclude } = baseline(path)?;
    let items = content_hash::items(path, &exclude).ok(); // a workspace that cannot be hashed has changed
    let Some(now) = items.and_then(|items| unchanged(&index, &items)) else {
        let content_hash =
            content_hash::index(path, &exclude).ok().map(|now| content_hash::aggregate(&now));
        return Some(State { clean: false, content_hash });
    };
    let content_hash = Some(content_hash::aggregate(&now));
    if now != index {
        sentinel.set_index(&now);
        // If the sentinel cannot be written, the files are read again next time.
        drop(sentinel.write(path));
    }
    Some(State { clean: true, content_hash })
}

/// The recorded state of a workspace.
pub(crate) struct Baseline {
    pub sentinel: Sentinel,
    /// The recorded files.
    pub index: Vec<Entry>,
    /// The patterns of files that the hash excludes.
    pub exclude: Vec<String>,
}

/// The recorded state of the workspace `path`, if its sentinel holds a valid one.
pub(crate) fn baseline(path: &Path) -> Option<Baseline> {
    let sentinel = Sentinel::read(path).ok()??; // the probe reports a broken sentinel
    let index = sentinel.index().filter(|_| sentinel.is_managed())?;
    let exclude = sentinel.exclude()?;
    Some(Baseline { sentinel, index, exclude })
}

/// Records the current files of a managed workspace as its content.
///
/// # Errors
/// If the workspace is not managed or cannot be hashed, or the sentinel cannot be written.
pub fn recalculate(path: &Path) -> Result<Sentinel> {
    let sentinel = Sentinel::read(path)?.filter(Sentinel::is_managed);
    let mut sentinel = sentinel.ok_or_else(|| {
        Error::at(Kind::InvalidModel, path, "not a managed workspace, so it has no hash")
    })?;
    let exclude = sentinel.exclude();
    let exclude =
        exclude.unwrap_or_else(|| content_hash::EXCLUDED.iter().map(|&p| p.to_owned()).collect());
    let index = content_hash::index(path, &exclude)?;
    sentinel.set_hash(&index, &exclude);
    sentinel.write(path)?;
    Ok(sentinel)
}

/// The index with the times of `items`, if the content of all items is the recorded one.
fn unchanged(index: &[Entry], items: &[Item]) -> Option<Vec<Entry>> {
    let known: BTreeMap<&str, &Entry> = index.iter().map(|e| (e.path.as_str(), e)).collect();
    if known.len() != items.len() {
        return None;
    }
    items.iter().map(|item| same(known.get(item.path.as_str())?, item)).collect()
}

fn same(known: &Entry, item: &Item) -> Option<Entry> {
    let touched = item.mtime_ns != known.mtime_ns;
    if item.size != known.size || item.link.is_some() && item.link.as_ref() != Some(&known.sha) {
        return None;
    }
    if !touched {
        return Some(known.clone());
    }
    item.entry().ok().filter(|entry| entry.sha == known.sha)
}
