//! Removing a cached model, or one revision of it, with the blobs that nothing else uses.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::cache::{Repo, Snapshot};
use super::deletion::{Deletion, blobs_of};
use super::{Found, Origin, Places, activity};
use crate::error::{Error, Kind, Result};

/// What to remove, and how carefully.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model, as it was found.
    pub found: &'a Found,
    /// Where it was found.
    pub places: &'a Places,
    /// True if only the revision that was found goes; the model goes with its last revision.
    pub revision_only: bool,
    /// True if a download that is under way is no obstacle.
    pub force: bool,
    /// True if nothing may go but from a cache whose path contains `mlxk2_test_`.
    pub only_tests: bool,
}

/// Says what `execute` would remove.
///
/// Errors are `WorkspaceModel` for what is not in the cache, `LocksPresent` (with the locks as
/// `matches`) while somebody is fetching it, and `DeletionFailed` for a model that is a link.
pub fn plan(request: &Request) -> Result<Deletion> {
    let mut plan = Deletion::new(&request.places.hub)?;
    let repo = owned(request, &plan)?;
    let gone: Vec<Snapshot> = repo.snapshots()?;
    let (gone, kept): (Vec<_>, Vec<_>) =
        gone.into_iter().partition(|s| Some(&s.revision) == request.found.revision.as_ref());
    if request.revision_only && !kept.is_empty() {
        plan.add_revisions(&repo, &gone)?;
        plan.blobs = unused(&repo, &gone, &kept)?;
    } else {
        plan.add_repo(&repo)?;
    }
    let payloads = plan.linked()?;
    plan.finish(payloads)
}

/// Removes what `plan` says; the bytes that this freed.
///
/// Refuses with `DeletionFailed`, and touches nothing, if the cache has changed since.
pub fn execute(request: &Request, plan: &Deletion) -> Result<u64> {
    plan.execute(&self::plan(request)?)
}

/// The blobs that only the revisions `gone` use.
fn unused(repo: &Repo, gone: &[Snapshot], kept: &[Snapshot]) -> Result<Vec<PathBuf>> {
    let used = |snapshots: &[Snapshot]| -> Result<BTreeSet<PathBuf>> {
        let blobs = snapshots.iter().map(|snapshot| blobs_of(&snapshot.path));
        Ok(blobs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    let own = repo.path.join("blobs");
    let blobs = used(gone)?.difference(&used(kept)?).cloned().collect::<Vec<_>>();
    Ok(blobs.into_iter().filter(|blob| blob.parent() == Some(&own)).collect())
}

/// The model's directory in the cache, if it may be removed.
fn owned(request: &Request, plan: &Deletion) -> Result<Repo> {
    let name = &request.found.name;
    let Origin::Cache { repo } = &request.found.origin else {
        return Err(Error::new(
            Kind::WorkspaceModel,
            name,
            "a workspace is not removed, it is yours",
        )
        .hint(format!("rm -r '{name}'")));
    };
    if request.only_tests && !plan.hub().to_string_lossy().contains("mlxk2_test_") {
        return Err(Error::new(Kind::PermissionDenied, name, "not in the cache of a test"));
    }
    let path = plan.hub().join(repo.file_name().unwrap_or_default());
    let repo = Repo { name: name.clone(), path };
    if !repo.is_whole()? {
        return Err(Error::new(Kind::DeletionFailed, name, "a part of it is a symbolic link")
            .hint(format!("remove it by hand: {}", repo.path.display())));
    }
    let busy = activity::busy(plan.hub(), &repo.path)?;
    if !busy.is_empty() && !request.force {
        let matches = busy.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::new(Kind::LocksPresent, name, "is being downloaded")
            .hint("wait for it, or remove it all the same with --force")
            .matches(matches));
    }
    Ok(repo)
}
