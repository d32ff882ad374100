//! Pushing a workspace to the Hub: what differs is found by digests, and goes up as one commit.
//!
//! `local` says what there is, `repo` what the Hub has, `plan` what differs, `upload` moves large
//! files, and `commit` makes all of it the new state of the branch, or none.

mod change;
mod check;
mod commit;
mod lines;
mod local;
mod plan;
mod pool;
mod repo;
mod report;
mod upload;

use std::path::Path;

pub use check::check;
pub use report::{Change, Pushed};

use crate::client::Hub;
use crate::event::Listener;
use crate::names;
use local::Local;
use mlxk_core::{Error, Kind, Result};
use plan::Plan;
use repo::State;

/// Where and how to push.
#[derive(Clone, Debug)]
pub struct Wish {
    /// `org/name`.
    pub repo: String,
    /// The branch that gets the commit.
    pub branch: String,
    /// The first line of the commit's message.
    pub message: String,
    /// True if nobody else may see what is pushed: a new repository is private, and one that is
    /// public is refused.
    pub private: bool,
    /// True if a repository or branch that there is not shall be made.
    pub create: bool,
    /// True if files of the Hub that the workspace has not shall go.
    pub delete_missing: bool,
    /// True if it shall only be said what would happen.
    pub dry_run: bool,
}

/// Pushes the directory `dir`.
///
/// # Errors
/// `RepoNotFound`, `HashNotFound` for the branch, `AccessDenied`, `Validation` and `InvalidModel` for
/// what cannot be pushed, `UploadFailed`. Then the branch is as it was.
pub fn push(hub: &Hub, dir: &Path, wish: &Wish, told: Listener) -> Result<Pushed> {
    check_wish(wish)?;
    let local = Local::read(dir)?;
    hub.interruptible(|| go(hub, &local, wish, told)).map_err(uploading)
}

/// Refuses what no Hub could do.
fn check_wish(wish: &Wish) -> Result<()> {
    names::check_id(&wish.repo)?;
    names::check_revision(&wish.branch)?;
    if !wish.repo.contains('/') {
        return Err(Error::new(Kind::Validation, &wish.repo, "whose model is it?")
            .hint("org/name, with your own name or that of an organisation"));
    }
    match wish.message.trim().is_empty() {
        true => Err(Error::new(Kind::Validation, "", "a commit without a message")),
        false => Ok(()),
    }
}

/// The same kind of failure, in the words of who sends.
fn uploading(mut error: Error) -> Error {
    if error.kind == Kind::DownloadFailed {
        error.kind = Kind::UploadFailed;
    }
    error
}

/// The error with the name of what it is about, if it has none.
fn named(error: Error, subject: &str) -> Error {
    if error.subject.is_empty() { error.about(subject) } else { error }
}

fn go(hub: &Hub, local: &Local, wish: &Wish, told: Listener) -> Result<Pushed> {
    let state = repo::look(hub, &wish.repo, &wish.branch, told)?;
    allowed(&state, wish)?;
    let mut pushed = Pushed::new(hub, local, wish);
    pushed.no_repo = state == State::Missing;
    pushed.no_branch = !matches!(state, State::Ready { .. });
    if wish.dry_run {
        let plan = match state.base() {
            Some(commit) => Plan::against(hub, local, wish, commit, told)?,
            None => Plan::of_new(local),
        };
        return Ok(pushed.would(&plan));
    }
    let commit = repo::ready(hub, wish, state, told)?;
    let plan = Plan::against(hub, local, wish, &commit, told)?;
    let (changes, refused) = commit::changes(hub, wish, &plan, told)?;
    pushed.refused = refused.into_iter().map(|file| file.path.clone()).collect();
    if changes.is_empty() {
        return Ok(pushed.unchanged());
    }
    upload::large(hub, wish, &changes, told)?;
    let made = commit::make(hub, wish, &commit, &changes, told)?;
    Ok(pushed.done(&plan, &changes, made))
}

/// Refuses what was not asked for: to show it to everybody, or to make what is not there.
fn allowed(state: &State, wish: &Wish) -> Result<()> {
    let refuse = |kind, subject: &str, message: &str, hint: &str| {
        Err(Error::new(kind, subject, message).hint(hint))
    };
    let makes = wish.create || wish.dry_run;
    match state {
        State::NoBranch { private: false, .. } | State::Ready { private: false, .. }
            if wish.private =>
        {
            let message = "the repository is public: everybody would see it";
            refuse(Kind::AccessDenied, &wish.repo, message, "--public says that this is meant")
        }
        State::Missing if !makes => {
            let hint = "--create makes it; check the name and that the token may see it";
            refuse(Kind::RepoNotFound, &wish.repo, "no such model on the Hub", hint)
        }
        State::NoBranch { .. } if !makes => {
            let subject = format!("{}@{}", wish.repo, wish.branch);
            refuse(Kind::HashNotFound, &subject, "no such branch on the Hub", "--create makes it")
        }
        _ => Ok(()),
    }
}
