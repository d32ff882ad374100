//! Whether a workspace is as it was when it was last hashed, found out mostly without reading it.

use std::collections::BTreeMap;
use std::path::Path;

use super::content_hash::{self, Entry, Item};
use super::sentinel::Sentinel;
use crate::error::{Error, Kind, Result};

/// A workspace compared with its sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// True if it is unchanged.
    pub clean: bool,
    /// Its hash as it is now; none if it has become one that cannot be hashed.
    pub content_hash: Option<String>,
}

/// Compares the workspace `path` with its sentinel; none if there is nothing to compare it with: no
/// sentinel, a hash of another version, or one that cannot be trusted.
///
/// Files count as unchanged by their size and time. One that was only touched is read, and if it is
/// the same the sentinel learns the new time.
pub fn check(path: &Path) -> Option<State> {
    let Baseline { mut sentinel, index, exclude } = baseline(path)?;
    let items = content_hash::items(path, &exclude).ok(); // what cannot be hashed is no longer what it was
    let Some(now) = items.and_then(|items| unchanged(&index, &items)) else {
        let content_hash =
            content_hash::index(path, &exclude).ok().map(|now| content_hash::aggregate(&now));
        return Some(State { clean: false, content_hash });
    };
    let content_hash = Some(content_hash::aggregate(&now));
    if now != index {
        sentinel.set_index(&now);
        // Where this cannot be written, all it costs is to read the files again next time.
        drop(sentinel.write(path));
    }
    Some(State { clean: true, content_hash })
}

/// What a workspace is compared with.
pub(crate) struct Baseline {
    pub sentinel: Sentinel,
    /// What it held.
    pub index: Vec<Entry>,
    /// The patterns of what did not count.
    pub exclude: Vec<String>,
}

/// What the workspace `path` is to be compared with, if there is such a thing.
pub(crate) fn baseline(path: &Path) -> Option<Baseline> {
    let sentinel = Sentinel::read(path).ok()??; // what is wrong with it, the probe says
    let index = sentinel.index().filter(|_| sentinel.is_managed())?;
    let exclude = sentinel.exclude()?;
    Some(Baseline { sentinel, index, exclude })
}

/// Makes the workspace as it is now the one that it is compared with.
pub fn recalculate(path: &Path) -> Result<Sentinel> {
    let subject = path.display().to_string();
    let sentinel = Sentinel::read(path)?.filter(Sentinel::is_managed);
    let mut sentinel = sentinel.ok_or_else(|| {
        Error::new(Kind::InvalidModel, subject, "not a managed workspace, so it has no hash")
    })?;
    let exclude = sentinel.exclude();
    let exclude =
        exclude.unwrap_or_else(|| content_hash::EXCLUDED.iter().map(|&p| p.to_owned()).collect());
    let index = content_hash::index(path, &exclude)?;
    sentinel.set_hash(&index, &exclude);
    sentinel.write(path)?;
    Ok(sentinel)
}

/// The index with the times of `items`, if they hold what it says.
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
