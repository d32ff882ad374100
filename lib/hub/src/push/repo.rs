//! The repository on the Hub that is pushed to: whether there is one, and making one.

use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Wish;
use crate::client::Hub;
use crate::event::Listener;
use crate::names;

/// What there is to push to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No repository that this user may see.
    Missing,
    /// A repository without the branch.
    NoBranch {
        /// True if not everybody may see it.
        private: bool,
        /// The commit that a new branch begins with.
        commit: String,
    },
    /// The branch.
    Ready {
        /// True if not everybody may see it.
        private: bool,
        /// Its commit.
        commit: String,
    },
}

impl State {
    /// The commit that a push would build on.
    pub fn base(&self) -> Option<&str> {
        match self {
            State::Missing => None,
            State::NoBranch { commit, .. } | State::Ready { commit, .. } => Some(commit),
        }
    }
}

#[derive(Deserialize)]
struct Said {
    sha: Option<String>,
    #[serde(default)]
    private: bool,
}

/// Asks what there is.
pub fn look(hub: &Hub, id: &str, branch: &str, told: Listener) -> Result<State> {
    let url = hub.api(&format!("models/{id}"));
    let at_branch = format!("{url}/revision/{}", names::escape(branch));
    match hub.get::<Said>(&at_branch, told) {
        Ok((said, _)) => Ok(State::Ready { private: said.private, commit: commit(id, said)? }),
        Err(e) if e.kind == Kind::RepoNotFound => Ok(State::Missing),
        Err(e) if e.kind == Kind::HashNotFound => {
            let (said, _): (Said, _) = hub.get(&url, told).map_err(|e| e.about(id))?;
            Ok(State::NoBranch { private: said.private, commit: commit(id, said)? })
        }
        Err(e) => Err(e.about(id)),
    }
}

/// Makes what is not there yet; the commit of the branch.
pub fn ready(hub: &Hub, wish: &Wish, mut state: State, told: Listener) -> Result<String> {
    let Wish { repo, branch, .. } = wish;
    if state == State::Missing {
        state = made(hub, wish, create(hub, wish, told), told)?;
    }
    if let State::NoBranch { .. } = state {
        let url = hub.api(&format!("models/{repo}/branch/{}", names::escape(branch)));
        state = made(hub, wish, hub.post::<Value>(&url, &json!({}), told), told)?;
    }
    match state {
        State::Ready { commit, .. } => Ok(commit),
        _ => Err(Error::new(Kind::UploadFailed, repo, "the Hub makes it, but does not show it")),
    }
}

fn create(hub: &Hub, wish: &Wish, told: Listener) -> Result<Value> {
    let (organization, name) = wish.repo.split_once('/').unwrap_or(("", &wish.repo));
    let body = json!({"name": name, "organization": organization, "private": wish.private});
    hub.post(&hub.api("repos/create"), &body, told)
}

/// What there is after the attempt to make it. One whose answer was lost is refused the second
/// time, but what it made is there.
fn made(hub: &Hub, wish: &Wish, attempt: Result<Value>, told: Listener) -> Result<State> {
    let state = look(hub, &wish.repo, &wish.branch, told)?;
    match (attempt, &state) {
        (Err(e), State::Missing) => Err(e.about(&wish.repo)),
        (Err(e), State::NoBranch { .. }) if e.kind != Kind::DownloadFailed => {
            Err(e.about(&wish.repo))
        }
        _ => Ok(state),
    }
}

fn commit(id: &str, said: Said) -> Result<String> {
    said.sha.ok_or_else(|| {
        Error::new(Kind::UploadFailed, id, "the Hub names no commit")
            .hint("HF_ENDPOINT names the Hub; does it speak the API of huggingface.co?")
    })
}
