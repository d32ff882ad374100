//! Pushing a workspace to the Hub: files that differ by digest are sent as one commit.
//!
//! `local` lists the workspace, `repo` reads the state of the repository, `diff` compares the two,
//! `upload` sends large files to LFS storage, and `commit` changes the branch atomically.

mod change;
mod check;
mod commit;
mod diff;
mod local;
mod ndjson_body;
mod pool;
mod repo;
mod report;
mod secrets;
mod upload;

use std::path::Path;

pub use check::check;
pub use report::{ChangeCounts, Pushed};
pub use secrets::{Secret, secrets};

use crate::client::Hub;
use crate::safe_path;
use diff::Diff;
use local::LocalFiles;
use mlxk_core::progress::Listener;
use mlxk_core::{Error, Kind, Result};
use repo::RepoState;

/// Options of a push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Repository id, `org/name`.
    pub repo: String,
    /// Branch to commit to.
    pub branch: String,
    /// Summary line of the commit message.
    pub message: String,
    /// True to push privately: a new repository is created private, and a public one is refused.
    pub private: bool,
    /// True to create the repository or the branch if it does not exist.
    pub create: bool,
    /// True to delete files from the Hub that the workspace does not have.
    pub delete_missing: bool,
    /// True to report the changes without making them.
    pub dry_run: bool,
}

/// Pushes the directory `dir` as one commit.
///
/// # Errors
/// `RepoNotFound`, `HashNotFound` for the branch, `AccessDenied`, `Validation` and `InvalidModel`
/// for a directory that cannot be pushed, `UploadFailed`. On any error the branch is unchanged.
pub fn push(hub: &Hub, dir: &Path, options: &PushOptions, progress: Listener) -> Result<Pushed> {
    check_options(options)?;
    let local = LocalFiles::read(dir)?;
    hub.interruptible(|| run(hub, &local, options, progress)).map_err(as_upload_error)
}

/// Checks the options, without any request.
///
/// # Errors
/// `Validation` for an invalid id, branch or message.
pub fn check_options(options: &PushOptions) -> Result<()> {
    safe_path::check_id(&options.repo)?;
    safe_path::check_revision(&options.branch)?;
    if !options.repo.contains('/') {
        return Err(Error::new(Kind::Validation, &options.repo, "a repository without an owner")
            .hint("org/name, where org is your user name or an organisation"));
    }
    match options.message.trim().is_empty() {
        true => Err(Error::new(Kind::Validation, "", "a commit without a message")),
        false => Ok(()),
    }
}

/// The error as `UploadFailed` if it is `DownloadFailed`, the kind that all requests fail with.
fn as_upload_error(mut error: Error) -> Error {
    if error.kind == Kind::DownloadFailed {
        error.kind = Kind::UploadFailed;
    }
    error
}

/// The error with `subject`, unless it has a subject.
fn with_subject(error: Error, subject: &str) -> Error {
    if error.subject.is_empty() { error.about(subject) } else { error }
}

fn run(hub: &Hub, local: &LocalFiles, options: &PushOptions, progress: Listener) -> Result<Pushed> {
    let state = repo::state(hub, &options.repo, &options.branch, progress)?;
    check_allowed(&state, options)?;
    let mut pushed = Pushed::new(hub, local, options);
    pushed.repo_missing = state == RepoState::Missing;
    pushed.branch_missing = !matches!(state, RepoState::Ready { .. });
    if options.dry_run {
        let diff = match state.base() {
            Some(commit) => Diff::against(hub, local, options, commit, progress)?,
            None => Diff::all_new(local),
        };
        return Ok(pushed.dry_run(&diff));
    }
    let commit = repo::ensure(hub, options, state, progress)?;
    let diff = Diff::against(hub, local, options, &commit, progress)?;
    let (changes, refused) = commit::changes(hub, options, &diff, progress)?;
    pushed.refused = refused.into_iter().map(|file| file.path.clone()).collect();
    if changes.is_empty() {
        return Ok(pushed.unchanged());
    }
    upload::large_files(hub, options, &changes, progress)?;
    let commit = commit::create(hub, options, &commit, &changes, progress)?;
    Ok(pushed.done(&diff, &changes, commit))
}

/// Refuses to publish in a public repository, or to create a repository or branch, without the
/// option.
fn check_allowed(state: &RepoState, options: &PushOptions) -> Result<()> {
    let refuse = |kind, subject: &str, message: &str, hint: &str| {
        Err(Error::new(kind, subject, message).hint(hint))
    };
    let creates = options.create || options.dry_run;
    match state {
        RepoState::NoBranch { private: false, .. } | RepoState::Ready { private: false, .. }
            if options.private =>
        {
            let message = "the repository is public: everybody would see it";
            refuse(Kind::AccessDenied, &options.repo, message, "--public says that this is meant")
        }
        RepoState::Missing if !creates => {
            let hint = "--create makes it; check the name and that the token may see it";
            refuse(Kind::RepoNotFound, &options.repo, "no such model on the Hub", hint)
        }
        RepoState::NoBranch { .. } if !creates => {
            let subject = format!("{}@{}", options.repo, options.branch);
            refuse(Kind::HashNotFound, &subject, "no such branch on the Hub", "--create makes it")
        }
        _ => Ok(()),
    }
}
