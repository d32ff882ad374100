//! Who asks, what they may do, and the refusals, worded as the Hub words them.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::repo::{Access, Kept, Repo};

/// The token of the owner of every repository.
pub const OWNER: &str = "hf_owner";
/// A token that is good, of somebody who owns nothing and was let in nowhere.
pub const STRANGER: &str = "hf_stranger";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Anybody,
    Stranger,
    Owner,
}

/// A refusal.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    code: Option<&'static str>,
    message: String,
}

pub type Answer<T> = Result<T, Refused>;

/// Who the Authorization header says.
pub fn who(headers: &HeaderMap) -> Answer<Who> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Who::Anybody) };
    match value.to_str().unwrap_or_default().strip_prefix("Bearer ") {
        Some(OWNER) => Ok(Who::Owner),
        Some(STRANGER) => Ok(Who::Stranger),
        _ => Err(Refused::new(401, None, "Invalid credentials in Authorization header")),
    }
}

/// The repository, if who asks may know of it.
pub fn see<'a>(kept: &'a Kept, name: &str, headers: &HeaderMap) -> Answer<&'a Repo> {
    let who = who(headers)?;
    match kept.repo(name) {
        Some(repo) if who == Who::Owner || repo.access != Access::Private => Ok(repo),
        // To those who gave no name, missing and private look alike.
        _ if who == Who::Anybody => Err(Refused::anonymous()),
        _ => Err(Refused::new(404, Some("RepoNotFound"), "Repository not found")),
    }
}

/// The repository, if who asks may have its files.
pub fn read<'a>(kept: &'a Kept, name: &str, headers: &HeaderMap) -> Answer<&'a Repo> {
    let repo = see(kept, name, headers)?;
    match (repo.access, who(headers)?) {
        (Access::Gated, Who::Anybody) => Err(Refused::gated(
            401,
            format!(
                "Access to model {name} is restricted. You must have access to it and be \
                 authenticated to access it. Please log in."
            ),
        )),
        (Access::Gated, Who::Stranger) => Err(Refused::gated(
            403,
            format!(
                "Access to model {name} is restricted and you are not in the authorized list. \
                 Visit https://huggingface.co/{name} to ask for access."
            ),
        )),
        _ => Ok(repo),
    }
}

/// The repository to change, which is for owners.
pub fn write<'a>(kept: &'a mut Kept, name: &str, headers: &HeaderMap) -> Answer<&'a mut Repo> {
    see(kept, name, headers)?;
    own(headers)?;
    Ok(kept.repo_mut(name))
}

/// Refuses all but the owner.
pub fn own(headers: &HeaderMap) -> Answer<()> {
    match who(headers)? {
        Who::Owner => Ok(()),
        Who::Stranger => Err(Refused::new(403, None, "You don't have the rights to do that")),
        Who::Anybody => Err(Refused::anonymous()),
    }
}

impl Refused {
    pub fn new(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Refused {
        let status = StatusCode::from_u16(status).unwrap();
        Refused { status, code, message: message.into() }
    }

    pub fn revision(revision: &str) -> Refused {
        Refused::new(404, Some("RevisionNotFound"), format!("Invalid rev id: {revision}"))
    }

    pub fn entry(path: &str) -> Refused {
        Refused::new(404, Some("EntryNotFound"), format!("Entry not found: {path}"))
    }

    fn gated(status: u16, message: String) -> Refused {
        Refused::new(status, Some("GatedRepo"), message)
    }

    fn anonymous() -> Refused {
        Refused::new(401, None, "Invalid username or password.")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body: Value = json!({"error": self.message});
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-error-message", HeaderValue::from_str(&self.message).unwrap());
        if let Some(code) = self.code {
            headers.insert("x-error-code", HeaderValue::from_static(code));
        }
        response
    }
}
