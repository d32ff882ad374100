//! Names of models as users type them: `org/name`, part of a name, `name@revision`, or a path.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// A parsed name; the model need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name as it was typed.
    pub text: String,
    /// The meaning of the name.
    pub target: Target,
    /// True if `target` is a full name, which short names and substrings do not match.
    pub exact: bool,
}

/// The meaning of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory: the text starts with `/`, `./` or `../`, or is `.` or `..`.
    Path(PathBuf),
    /// A full or partial name, optionally with a revision.
    Name {
        /// The text before the last `@`.
        name: String,
        /// The text after the last `@`: a branch, a tag, or the first digits of a commit.
        revision: Option<String>,
    },
}

impl Spec {
    /// Parses a name that a user typed.
    ///
    /// # Errors
    /// If the name is empty, or empty on one side of its `@`.
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

    /// The exact name and revision of a record.
    ///
    /// # Errors
    /// If the name is empty, or empty on one side of its `@`.
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

/// True if the text is an explicit path and no name.
pub(crate) fn is_path(text: &str) -> bool {
    ["/", "./", "../"].iter().any(|prefix| text.starts_with(prefix)) || text == "." || text == ".."
}

fn invalid(text: &str, message: &str) -> Error {
    Error::validation(message).about(text).hint(
        "a model is named org/name, part of that, name@revision, or a path that starts with ./",
    )
}
