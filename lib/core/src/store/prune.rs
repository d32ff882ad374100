//! Pruning of the cache: unreferenced revisions and blobs, and leftovers of downloads.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::atomic_write::TEMP_PREFIX;
use super::cache::{self, Repo, Snapshot};
use super::deletion::{Deletion, blobs_of};
use super::directory::entries;
use super::{Places, activity, shared};
use crate::error::{Error, Kind, Result};

/// A plan of pruning, and what it leaves alone.
#[derive(Debug)]
pub struct Pruning {
    /// The paths to delete.
    pub deletion: Deletion,
    /// The models that cannot be read, which are kept.
    pub unreadable: Vec<Error>,
}

/// Plans the removal of everything unused:
///
/// - revisions without a ref, except the current one, and blobs that no revision uses;
/// - incomplete downloads, locks and temporary files last written before `before`;
/// - models of which nothing else is left, and shared payloads that no model uses.
///
/// A model that is being downloaded, that cannot be read, or whose directory is a link, is kept.
pub fn plan(places: &Places, before: SystemTime) -> Result<Pruning> {
    let mut plan = Deletion::new(&places.hub)?;
    let mut unreadable = Vec::new();
    for repo in cache::repos(plan.hub())? {
        match of_repo(&plan, &repo, before) {
            Ok(part) => plan.append(part),
            Err(e) => unreadable.push(e.about(&repo.name)),
        }
    }
    plan.snapshots.extend(left_aside(plan.hub(), before)?);
    for lock in stale_locks(plan.hub(), before)? {
        if !plan.locks.contains(&lock) {
            plan.locks.push(lock);
        }
    }
    let store = shared::exists(plan.hub())?;
    let payloads = if store { shared::payloads(plan.hub())? } else { Vec::new() };
    Ok(Pruning { deletion: plan.finish(payloads)?, unreadable })
}

/// What is to be deleted of a model; nothing if it is to be kept.
fn of_repo(plan: &Deletion, repo: &Repo, before: SystemTime) -> Result<Deletion> {
    let mut part = plan.empty();
    if repo.is_whole()? && activity::busy(plan.hub(), &repo.path)?.is_empty() {
        add(&mut part, repo, before)?;
        part.check_readable()?;
    }
    Ok(part)
}

/// The directories of models that a killed removal left behind.
fn left_aside(hub: &Path, before: SystemTime) -> Result<Vec<PathBuf>> {
    let named = |(name, _): &(String, PathBuf)| name.starts_with(TEMP_PREFIX);
    let left = entries(hub)?.into_iter().filter(named).map(|(_, path)| path);
    let mut left: Vec<_> = left.filter(|path| activity::is_older(path, before)).collect();
    left.sort();
    Ok(left)
}

/// Executes the plan and returns the bytes freed.
///
/// # Errors
/// `DeletionFailed` if the cache has changed since the plan was made; then nothing is deleted.
pub fn execute(places: &Places, before: SystemTime, plan: &Deletion) -> Result<u64> {
    match plan.execute(&self::plan(places, before)?.deletion) {
        // Another program deleted all that was to be deleted.
        Err(e) if e.kind == Kind::ModelNotFound => Ok(0),
        done => done,
    }
}

fn add(plan: &mut Deletion, repo: &Repo, before: SystemTime) -> Result<()> {
    let snapshots = repo.snapshots()?;
    let unfinished = activity::unfinished(&repo.path)?;
    let old = |path: &PathBuf| activity::is_older(path, before);
    if snapshots.is_empty() {
        let all_old = unfinished.iter().all(old) && activity::is_older(&repo.path, before);
        return if all_old { plan.add_repo(repo) } else { Ok(()) };
    }
    let kept = kept(repo)?;
    let (kept, gone): (Vec<Snapshot>, Vec<Snapshot>) =
        snapshots.into_iter().partition(|snapshot| kept.contains(&snapshot.revision));
    plan.add_revisions(repo, &gone)?;
    plan.blobs.extend(orphans(repo, &kept)?);
    plan.blobs.extend(unfinished.into_iter().filter(old));
    let temporary =
        entries(&repo.path)?.into_iter().filter(|(name, _)| name.starts_with(TEMP_PREFIX));
    plan.snapshots.extend(temporary.map(|(_, path)| path).filter(old));
    Ok(())
}

/// The revisions that have a ref, and the current one.
fn kept(repo: &Repo) -> Result<BTreeSet<String>> {
    let current = repo.current()?.map(|(revision, _)| revision);
    Ok(repo.refs()?.into_iter().map(|r| r.commit).chain(current).collect())
}

/// The blobs that none of the `kept` revisions uses, except incomplete ones.
fn orphans(repo: &Repo, kept: &[Snapshot]) -> Result<Vec<PathBuf>> {
    let mut used = BTreeSet::new();
    for snapshot in kept {
        used.extend(blobs_of(&snapshot.path)?);
    }
    let mut orphans: Vec<_> = entries(&repo.path.join("blobs"))?
        .into_iter()
        .filter(|(name, path)| !name.ends_with(".incomplete") && !used.contains(path))
        .map(|(_, path)| path)
        .collect();
    orphans.sort();
    Ok(orphans)
}

/// The locks of models that were last written before `before` and that no process holds.
fn stale_locks(hub: &Path, before: SystemTime) -> Result<Vec<PathBuf>> {
    let mut stale = Vec::new();
    for (name, directory) in entries(&hub.join(".locks"))? {
        let is_real = fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_dir());
        if cache::decode(&name).is_none() || !is_real {
            continue;
        }
        for lock in activity::files(hub, &directory)? {
            if activity::is_older(&lock, before) && !activity::is_held(&lock) {
                stale.push(lock);
            }
        }
    }
    stale.sort();
    Ok(stale)
}
