//! Verification of a model's content: every file is hashed, in parallel.
//!
//! A file in the cache is compared with the Hub's list of files, if huggingface_hub stored it, and
//! with the name of its blob, which is a digest. A file of a managed workspace is compared with the
//! file index of the sentinel; that covers only the header of weights, so these are also compared
//! with the digests that a clone recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::digest::{self, Digest};
use crate::error::{Error, Result};
use crate::health::{self, Health};
use crate::probe::Facts;
use crate::progress::Progress;
use crate::store::tree::{Entry, Tree};
use crate::store::{Origin, shared};
use crate::workspace::clean::{self, Baseline};
use crate::workspace::content_hash::{self, Item};

/// A file with wrong content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The path of the file, relative to the model.
    pub path: String,
    /// The name of the file's blob in the cache, if it has one.
    pub blob: Option<String>,
    /// The expected digest, if it is known.
    pub expected: Option<String>,
    /// The actual digest; none if the file was not read to its end.
    pub found: Option<String>,
    /// The kind of defect.
    pub reason: Reason,
}

/// The kind of defect of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The content differs.
    Content,
    /// The size differs from the Hub's list.
    Size,
    /// The file is missing.
    Missing,
    /// The file was added after the workspace was hashed.
    New,
    /// The file cannot be read.
    Unreadable,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The bad files, sorted by path.
    pub bad: Vec<Bad>,
    /// The files without a known digest, sorted.
    pub unknown: Vec<PathBuf>,
}

/// Reads and verifies every file of a model; `progress` is called from several threads.
pub fn verify(facts: &Facts, progress: &(dyn Fn(Progress) + Sync)) -> Verdict {
    match &facts.found.origin {
        Origin::Cache { repo } => cached(facts, repo, progress),
        Origin::Workspace => workspace(facts, progress),
    }
}

/// Writes the path and the defect in words.
impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", health::one_line(&self.path), self.reason.words())
    }
}

impl Verdict {
    /// The health of a model after verification, from its `health` before.
    pub fn health(&self, health: Health) -> Health {
        match self.bad.as_slice() {
            [] => health,
            [one] => unhealthy(one.to_string()),
            [first, _] => unhealthy(format!("{first} (1 more is bad)")),
            [first, rest @ ..] => unhealthy(format!("{first} ({} more are bad)", rest.len())),
        }
    }
}

fn unhealthy(reason: String) -> Health {
    Health { healthy: false, reason: health::one_line(&reason) }
}

impl Reason {
    /// The defect in words that continue the path.
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

/// A file of a cached model and its expected content.
struct Check {
    path: PathBuf,
    size: u64,
    blob: Option<String>,
    /// The file's entry in the Hub's list, if it is known.
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
    checks.sort_by_key(|check| std::cmp::Reverse(check.size)); // the largest files first, so that no thread ends late
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

    /// The expected digest: from the Hub's listing, or else from the name of the blob.
    fn expected(&self) -> Option<Digest> {
        let listed = self.listed.as_ref().and_then(Entry::digest);
        listed.or_else(|| self.blob.as_deref()?.parse().ok())
    }

    /// False if the name of the blob is another digest than the expected one.
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

/// The name of the blob that a file of a snapshot links to, whether the blob exists or not.
fn blob(link: &Path) -> Option<String> {
    let target = shared::hop(link).ok()??; // a link that cannot be read names no blob
    Some(target.file_name()?.to_str()?.to_owned())
}

/// The files that a broken link or the index names and that do not exist.
fn missing(facts: &Facts) -> Vec<PathBuf> {
    let dangles = |path: &PathBuf| {
        let link = facts.path(path);
        link.is_symlink() && fs::metadata(&link).is_err_and(|e| e.kind() == NotFound)
    };
    let links = facts.strays.iter().map(|stray| &stray.path).filter(|path| dangles(path));
    let mut missing: Vec<_> = links.cloned().collect();
    if let Some(Ok(index)) = &facts.index {
        let named = index.files().map(PathBuf::from);
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
    let items = match content_hash::items(root, &exclude) {
        Ok(items) => items,
        // A link that leads out, or a directory that cannot be listed; the error names the path.
        Err(e) => return Verdict { bad: vec![unreadable(root, &e)], unknown: Vec::new() },
    };
    progress(Progress::Due(items.iter().map(|item| item.size).sum()));
    let known: BTreeMap<&str, &content_hash::Entry> = index.iter().map(|e| (&*e.path, e)).collect();
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

/// Compares a file with its `known` entry, and its whole content with `digest` if the entry covers
/// only a part.
fn judge(
    item: &Item,
    known: Option<&content_hash::Entry>,
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

/// The difference between a file and its `known` entry.
fn changed(known: Option<&content_hash::Entry>, item: &Item) -> Option<Bad> {
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
    known: Option<&content_hash::Entry>,
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
