//! How people name a model: `org/name`, part of a name, `name@revision`, or a path.

use std::path::PathBuf;

use crate::error::{Error, Kind, Result};

/// A parsed name; says nothing about whether such a model exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name as it was given.
    pub text: String,
    /// What is meant by it.
    pub target: Target,
    /// True if `target` is a full name, to be taken literally: no short names, no substrings.
    pub exact: bool,
}

/// What a [`Spec`] points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory: the text starts with `/`, `./`, `../` or `~/`-expanded by the shell, or is `.` or `..`.
    Path(PathBuf),
    /// A name, whole or in part, and the start of a commit hash or a ref if one was asked for.
    Name {
        /// What stands before the last `@`.
        name: String,
        /// What stands behind it.
        revision: Option<String>,
    },
}

impl Spec {
    /// Reads what a person typed. Errors if it is empty, or empty on a side of its `@`.
    pub fn parse(text: &str) -> Result<Spec> {
        let spec = |target| Spec { text: text.to_owned(), target, exact: false };
        if is_path(text) {
            return Ok(spec(Target::Path(text.into())));
        }
        let (name, revision) = match text.rsplit_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        if name.trim().is_empty() || revision.is_some_and(|r| r.trim().is_empty()) {
            return Err(invalid(text, "not the name of a model"));
        }
        let (name, revision) = (name.to_owned(), revision.map(str::to_owned));
        Ok(spec(Target::Name { name, revision }))
    }

    /// The full name of a record, and the revision that it states.
    pub fn exact(name: &str, revision: Option<&str>) -> Result<Spec> {
        let spec = Spec::parse(name)?;
        let target = match spec.target {
            Target::Name { name, revision: None } => {
                Target::Name { name, revision: revision.map(str::to_owned) }
            }
            target => target,
        };
        Ok(Spec { target, exact: true, ..spec })
    }
}

pub(crate) fn is_path(text: &str) -> bool {
    ["/", "./", "../"].iter().any(|prefix| text.starts_with(prefix)) || text == "." || text == ".."
}

fn invalid(text: &str, message: &str) -> Error {
    Error::new(Kind::Validation, text, message).hint(
        "a model is named org/name, part of that, name@revision, or a path that starts with ./",
    )
}
