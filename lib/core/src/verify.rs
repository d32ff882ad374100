//! Whether every file of a model holds what it should: all of them hashed, all cores at once.
//!
//! A file in the cache is compared with the Hub's list of files, where huggingface_hub kept it, and
//! with the name of its blob, which is a digest too. A managed workspace is compared with the hash
//! that its sentinel has, file by file, and weights, of which that covers only the header, with the
//! digests that a clone has noted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::clean::{self, Baseline};
use crate::digest::{self, Digest};
use crate::error::{Error, Result};
use crate::hash::{self, Item};
use crate::health::{self, Health};
use crate::probe::Facts;
pub use crate::progress::Progress;
use crate::store::tree::{Entry, Tree};
use crate::store::{Origin, shared};

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// Its path, relative to the model.
    pub path: String,
    /// The name of its blob in the cache, where it has one.
    pub blob: Option<String>,
    /// The digest that it should have, if that is known.
    pub expected: Option<String>,
    /// The digest that it has; none if it was not read to its end.
    pub found: Option<String>,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What can be wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It holds something else.
    Content,
    /// It is shorter or longer than the Hub says.
    Size,
    /// It is not there.
    Missing,
    /// It was not there when the workspace was hashed.
    New,
    /// It cannot be read.
    Unreadable,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The bad files, sorted by path.
    pub bad: Vec<Bad>,
    /// The files that there is nothing to compare with, sorted.
    pub unknown: Vec<PathBuf>,
}

/// Reads every file of the model that `facts` are of.
pub fn verify(facts: &Facts, progress: &(dyn Fn(Progress) + Sync)) -> Verdict {
    match &facts.found.origin {
        Origin::Cache { repo } => cached(facts, repo, progress),
        Origin::Workspace => workspace(facts, progress),
    }
}

/// The path and what is wrong with it, in words.
impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", health::one_line(&self.path), self.reason.words())
    }
}

impl Verdict {
    /// The health of a model that was in `health` before its files were read.
    pub fn health(&self, health: Health) -> Health {
        match self.bad.as_slice() {
            [] => health,
            [one] => unhealthy(one.to_string()),
            [first, rest @ ..] => unhealthy(format!("{first} ({} more are bad)", rest.len())),
        }
    }
}

fn unhealthy(reason: String) -> Health {
    Health { healthy: false, reason: health::one_line(&reason) }
}

impl Reason {
    /// The reason in words that fit behind the path.
    fn words(self) -> &'static str {
        match self {
            Reason::Content => "does not have the content that it should",
            Reason::Size => "does not have the size that it should",
            Reason::Missing => "is missing",
            Reason::New => "was not there when the workspace was hashed",
            Reason::Unreadable => "cannot be read",
        }
    }
}

/// A file of a cached model, and what it should be.
struct Check {
    path: PathBuf,
    size: u64,
    blob: Option<String>,
    /// What the Hub says, where that is known.
    listed: Option<Entry>,
}

fn cached(facts: &Facts, repo: &Path, progress: &(dyn Fn(Progress) + Sync)) -> Verdict {
    let tree = facts.found.revision.as_deref().and_then(|commit| Tree::read(repo, commit));
    let listed = |path: &Path| tree.as_ref()?.files.get(path.to_str()?).cloned();
    let check = |path: &Path, size| Check {
        path: path.to_owned(),
        size,
        blob: blob(&facts.path(path)),
        listed: listed(path),
    };
    let mut checks: Vec<_> = facts.files.iter().map(|f| check(&f.path, f.size)).collect();
    checks.sort_by_key(|check| std::cmp::Reverse(check.size)); // the longest work first
    progress(Progress::Due(checks.iter().map(|check| check.size).sum()));
    let results: Vec<_> =
        checks.iter().par_bridge().map(|check| (check, check.run(facts, progress))).collect();
    let mut verdict = Verdict::default();
    for (check, result) in results {
        match result {
            Outcome::Good => {}
            Outcome::Unknown => verdict.unknown.push(check.path.clone()),
            Outcome::Bad(found, reason) => verdict.bad.push(check.bad(found, reason)),
        }
    }
    let missing = missing(facts).into_iter().map(|path| check(&path, 0));
    verdict.bad.extend(missing.map(|check| check.bad(None, Reason::Missing)));
    verdict.bad.sort_by(|a, b| a.path.cmp(&b.path));
    verdict.unknown.sort();
    verdict
}

enum Outcome {
    Good,
    Unknown,
    Bad(Option<Digest>, Reason),
}

impl Check {
    fn run(&self, facts: &Facts, progress: &(dyn Fn(Progress) + Sync)) -> Outcome {
        let Some(expected) = self.expected() else {
            progress(Progress::Read(self.size));
            return Outcome::Unknown;
        };
        if self.listed.as_ref().is_some_and(|entry| entry.bytes() != self.size) {
            progress(Progress::Read(self.size));
            return Outcome::Bad(None, Reason::Size);
        }
        let read = |count| -> Result<()> {
            progress(Progress::Read(count));
            Ok(())
        };
        match digest::file(&facts.path(&self.path), expected.hasher(self.size), read) {
            Ok(found) if found == expected && self.is_well_named(expected) => Outcome::Good,
            Ok(found) => Outcome::Bad(Some(found), Reason::Content),
            Err(_) => Outcome::Bad(None, Reason::Unreadable),
        }
    }

    /// The digest that the file should have, by the Hub's word or else by the name of its blob.
    fn expected(&self) -> Option<Digest> {
        let listed = self.listed.as_ref().and_then(Entry::digest);
        listed.or_else(|| self.blob.as_deref()?.parse().ok())
    }

    /// False if the blob is named after other content than it should have, whatever it has.
    fn is_well_named(&self, expected: Digest) -> bool {
        self.blob.as_deref().and_then(|name| name.parse().ok()).is_none_or(|name| expected == name)
    }

    fn bad(&self, found: Option<Digest>, reason: Reason) -> Bad {
        Bad {
            path: self.path.to_string_lossy().into_owned(),
            blob: self.blob.clone(),
            expected: self.expected().map(|digest| digest.to_string()),
            found: found.map(|digest| digest.to_string()),
            reason,
        }
    }
}

/// The name of the blob that a file of a snapshot links to, there or not.
fn blob(link: &Path) -> Option<String> {
    let target = shared::hop(link).ok()??; // without a name there is nothing to compare with
    Some(target.file_name()?.to_str()?.to_owned())
}

/// Files that a link or the index names, and that are not there.
fn missing(facts: &Facts) -> Vec<PathBuf> {
    let dangles = |path: &PathBuf| {
        let link = facts.path(path);
        link.is_symlink() && fs::metadata(&link).is_err_and(|e| e.kind() == NotFound)
    };
    let links = facts.strays.iter().map(|stray| &stray.path).filter(|path| dangles(path));
    let mut missing: Vec<_> = links.cloned().collect();
    if let Some(Ok(index)) = &facts.index {
        let named = index.files().into_iter().map(PathBuf::from);
        missing.extend(named.filter(|path| fs::symlink_metadata(facts.path(path)).is_err()));
    }
    missing
}

fn workspace(facts: &Facts, progress: &(dyn Fn(Progress) + Sync)) -> Verdict {
    let root = &facts.found.path;
    let Some(Baseline { sentinel, index, exclude }) = clean::baseline(root) else {
        let unknown = facts.files.iter().map(|file| file.path.clone()).collect();
        return Verdict { bad: Vec::new(), unknown };
    };
    let items = match hash::items(root, &exclude) {
        Ok(items) => items,
        // A link that leads away, a directory that cannot be listed: it says where, not what.
        Err(e) => return Verdict { bad: vec![unreadable(root, &e)], unknown: Vec::new() },
    };
    progress(Progress::Due(items.iter().map(|item| item.size).sum()));
    let known: BTreeMap<&str, &hash::Entry> = index.iter().map(|e| (&*e.path, e)).collect();
    let digests = sentinel.digests();
    let there: BTreeSet<&str> = items.iter().map(|item| &*item.path).collect();
    let judge = |item: &Item| {
        let path = &*item.path;
        (item.path.clone(), judge(item, known.get(path).copied(), digests.get(path), progress))
    };
    let mut verdict = Verdict::default();
    for (path, judged) in items.par_iter().map(judge).collect::<Vec<_>>() {
        match judged {
            Judged::Good => {}
            Judged::Unknown => verdict.unknown.push(path.into()),
            Judged::Bad(bad) => verdict.bad.push(bad),
        }
    }
    let gone = index.iter().filter(|entry| !there.contains(&*entry.path));
    verdict
        .bad
        .extend(gone.map(|entry| differing(&entry.path, Some(entry), None, Reason::Missing)));
    verdict.bad.sort_by(|a, b| a.path.cmp(&b.path));
    verdict
}

enum Judged {
    Good,
    Unknown,
    Bad(Bad),
}

/// Compares a file with its entry in the hash, and all of it with its `digest` if that entry covers
/// only a part.
fn judge(
    item: &Item,
    known: Option<&hash::Entry>,
    digest: Option<&Digest>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Judged {
    let bad = changed(known, item);
    if bad.is_none()
        && !item.is_covered()
        && let Some(expected) = digest
    {
        return whole(item, *expected, progress);
    }
    progress(Progress::Read(item.size));
    match bad {
        Some(bad) => Judged::Bad(bad),
        None if item.is_covered() => Judged::Good,
        None => Judged::Unknown,
    }
}

fn whole(item: &Item, expected: Digest, progress: &(dyn Fn(Progress) + Sync)) -> Judged {
    let read = |count| -> Result<()> {
        progress(Progress::Read(count));
        Ok(())
    };
    let found = digest::file(item.disk(), expected.hasher(item.size), read);
    let bad = |found: Option<Digest>, reason| {
        let [expected, found] = [Some(expected), found].map(|digest| digest.map(|d| d.to_string()));
        Judged::Bad(Bad { path: item.path.clone(), blob: None, expected, found, reason })
    };
    match found {
        Ok(found) if found == expected => Judged::Good,
        Ok(found) => bad(Some(found), Reason::Content),
        Err(_) => bad(None, Reason::Unreadable),
    }
}

/// What is wrong with a file that should be `known`.
fn changed(known: Option<&hash::Entry>, item: &Item) -> Option<Bad> {
    match item.entry() {
        Err(_) => Some(differing(&item.path, known, None, Reason::Unreadable)),
        Ok(now) => match known {
            None => Some(differing(&item.path, None, Some(now.sha), Reason::New)),
            Some(known) if known.sha == now.sha && known.size == now.size => None,
            Some(_) => Some(differing(&item.path, known, Some(now.sha), Reason::Content)),
        },
    }
}

fn differing(
    path: &str,
    known: Option<&hash::Entry>,
    found: Option<String>,
    reason: Reason,
) -> Bad {
    let digits = |sha: &str| sha.trim_start_matches("sha256:").to_owned();
    let expected = known.map(|known| digits(&known.sha));
    Bad { path: path.to_owned(), blob: None, expected, found: found.as_deref().map(digits), reason }
}

fn unreadable(root: &Path, error: &Error) -> Bad {
    let path = Path::new(&error.subject);
    let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy();
    differing(&path, None, None, Reason::Unreadable)
}
