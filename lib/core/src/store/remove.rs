//! Removal of a cached model, or of one revision with the blobs that only it uses.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::cache::{Repo, Snapshot};
use super::deletion::{Deletion, blobs_of};
use super::{Found, Origin, Places, activity};
use crate::error::{Error, Kind, Result};

/// A request to remove a model.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The model to remove.
    pub found: &'a Found,
    /// The directories that hold models.
    pub places: &'a Places,
    /// True to remove only the revision of `found`; the last revision takes the model with it.
    pub revision_only: bool,
    /// True to remove the model even while it is being downloaded.
    pub force: bool,
    /// True to refuse removals from a cache whose path does not contain `mlxk2_test_`.
    pub only_tests: bool,
}

/// Plans a removal.
///
/// # Errors
/// `WorkspaceModel` for a workspace, `LocksPresent` with the locks as `matches` while the model is
/// being downloaded, and `DeletionFailed` if a directory of the model is a link.
pub fn plan(request: &Request) -> Result<Deletion> {
    check_origin(request.found)?;
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

/// Executes the plan and returns the bytes freed.
///
/// # Errors
/// `DeletionFailed` if the cache has changed since the plan was made, `ModelNotFound` if another
/// program removed the model; then nothing is deleted.
pub fn execute(request: &Request, plan: &Deletion) -> Result<u64> {
    if !present(request) {
        return Err(gone(request));
    }
    plan.execute(&self::plan(request)?).map_err(|e| match e.kind {
        Kind::ModelNotFound => gone(request),
        // The other one was faster between the two looks.
        Kind::DeletionFailed if !present(request) => gone(request),
        _ => e,
    })
}

/// True if the directory to remove exists.
fn present(request: &Request) -> bool {
    let directory = match &request.found.origin {
        Origin::Cache { repo } if !request.revision_only => repo,
        _ => &request.found.path,
    };
    directory.symlink_metadata().is_ok()
}

fn gone(request: &Request) -> Error {
    let message = "another program removed it";
    Error::new(Kind::ModelNotFound, &request.found.name, message)
}

/// The blobs that only the revisions `gone` use, not the `kept` ones.
fn unused(repo: &Repo, gone: &[Snapshot], kept: &[Snapshot]) -> Result<Vec<PathBuf>> {
    let used = |snapshots: &[Snapshot]| -> Result<BTreeSet<PathBuf>> {
        let blobs = snapshots.iter().map(|snapshot| blobs_of(&snapshot.path));
        Ok(blobs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    let own = repo.path.join("blobs");
    let blobs = used(gone)?.difference(&used(kept)?).cloned().collect::<Vec<_>>();
    Ok(blobs.into_iter().filter(|blob| blob.parent() == Some(&own)).collect())
}

fn check_origin(found: &Found) -> Result<()> {
    match found.origin {
        Origin::Cache { .. } => Ok(()),
        Origin::Workspace => {
            let message = "a workspace is not removed, it is yours";
            Err(Error::new(Kind::WorkspaceModel, &found.name, message)
                .hint(format!("rm -r '{}'", found.name)))
        }
    }
}

/// The cached model, if it may be removed.
fn owned(request: &Request, plan: &Deletion) -> Result<Repo> {
    let name = &request.found.name;
    let Origin::Cache { repo } = &request.found.origin else {
        return Err(Error::at(Kind::Internal, &request.found.path, "not in the cache"));
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
