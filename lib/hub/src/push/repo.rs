//! State of the repository and branch on the Hub, and their creation.

use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::PushOptions;
use crate::client::Hub;
use crate::safe_path;
use mlxk_core::progress::Listener;

/// State of the repository and the branch to push to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoState {
    /// Repository that does not exist or that this user may not see.
    Missing,
    /// Repository without the branch.
    NoBranch {
        /// True if the repository is private.
        private: bool,
        /// Newest commit of the main branch, from which a new branch starts.
        commit: String,
    },
    /// Repository with the branch.
    Ready {
        /// True if the repository is private.
        private: bool,
        /// Newest commit of the branch.
        commit: String,
    },
}

impl RepoState {
    /// Commit that a push would build on.
    pub fn base(&self) -> Option<&str> {
        match self {
            RepoState::Missing => None,
            RepoState::NoBranch { commit, .. } | RepoState::Ready { commit, .. } => Some(commit),
        }
    }
}

#[derive(Deserialize)]
struct RepoResponse {
    sha: Option<String>,
    #[serde(default)]
    private: bool,
}

/// Requests the state of the repository `id` and its branch.
pub fn state(hub: &Hub, id: &str, branch: &str, progress: Listener) -> Result<RepoState> {
    let url = hub.api(&format!("models/{id}"));
    let at_branch = format!("{url}/revision/{}", safe_path::escape(branch));
    match hub.get::<RepoResponse>(&at_branch, progress) {
        Ok((response, _)) => {
            Ok(RepoState::Ready { private: response.private, commit: commit(id, response)? })
        }
        Err(e) if e.kind == Kind::RepoNotFound => Ok(RepoState::Missing),
        Err(e) if e.kind == Kind::HashNotFound => {
            let (response, _): (RepoResponse, _) =
                hub.get(&url, progress).map_err(|e| e.about(id))?;
            Ok(RepoState::NoBranch { private: response.private, commit: commit(id, response)? })
        }
        Err(e) => Err(e.about(id)),
    }
}

/// Creates the repository and the branch where they are missing; returns the branch's newest
/// commit.
pub fn ensure(
    hub: &Hub,
    options: &PushOptions,
    mut state: RepoState,
    progress: Listener,
) -> Result<String> {
    let PushOptions { repo, branch, .. } = options;
    if state == RepoState::Missing {
        state = state_after(hub, options, create(hub, options, progress), progress)?;
    }
    if let RepoState::NoBranch { .. } = state {
        let url = hub.api(&format!("models/{repo}/branch/{}", safe_path::escape(branch)));
        state = state_after(hub, options, hub.post::<Value>(&url, &json!({}), progress), progress)?;
    }
    match state {
        RepoState::Ready { commit, .. } => Ok(commit),
        _ => Err(Error::new(Kind::UploadFailed, repo, "the Hub makes it, but does not show it")),
    }
}

fn create(hub: &Hub, options: &PushOptions, progress: Listener) -> Result<Value> {
    let (organization, name) = options.repo.split_once('/').unwrap_or(("", &options.repo));
    let body = json!({"name": name, "organization": organization, "private": options.private});
    hub.post(&hub.api("repos/create"), &body, progress)
}

/// State after the `attempt` to create something. A retry of a request whose response was lost
/// fails because the thing exists, so that the state decides, not the attempt's result.
fn state_after(
    hub: &Hub,
    options: &PushOptions,
    attempt: Result<Value>,
    progress: Listener,
) -> Result<RepoState> {
    let state = state(hub, &options.repo, &options.branch, progress)?;
    match (attempt, &state) {
        (Err(e), RepoState::Missing) => Err(e.about(&options.repo)),
        (Err(e), RepoState::NoBranch { .. }) if e.kind != Kind::DownloadFailed => {
            Err(e.about(&options.repo))
        }
        _ => Ok(state),
    }
}

fn commit(id: &str, response: RepoResponse) -> Result<String> {
    response.sha.ok_or_else(|| {
        Error::new(Kind::UploadFailed, id, "the Hub names no commit")
            .hint("HF_ENDPOINT names the Hub; does it speak the API of huggingface.co?")
    })
}
