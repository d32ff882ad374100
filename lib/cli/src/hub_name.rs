//! Model on the Hub that a record, a typed name or the URL of its page means.

use mlxk_core::{Error, Kind, Places, Record, Result, Spec, Target, resolve};

use crate::page;

/// Revision that is meant where none is named.
const MAIN: &str = "main";

/// Name of a model on the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// Repository, `org/name`.
    pub id: String,
    /// Branch, tag or commit, if one was named.
    pub revision: Option<String>,
    /// True if a shorter name was given.
    pub expanded: bool,
}

impl HubName {
    /// Model that `record` names, at `branch` or at the revision behind an `@`, or else at the
    /// branch that a record of a push has.
    ///
    /// A name with a slash is taken literally, and so is that of a record from a listing, whose
    /// `hash` says what is here and not what is wanted. A shorter name may mean a model that is in
    /// the cache.
    ///
    /// The URL of the model's page, as copied from a browser, is a name too.
    ///
    /// # Errors
    /// If the record names a path, or two revisions, or the URL of something else.
    pub fn of(record: &Record, branch: Option<&str>, places: &Places) -> Result<HubName> {
        let spec = page::named(record.spec()?)?;
        let (name, revision) = match &spec.target {
            Target::Name { name, revision } => (name, revision.as_deref().filter(|_| !spec.exact)),
            Target::Path(_) => {
                let message = "a path, not the name of a model on the Hub";
                return Err(Error::new(Kind::WorkspaceModel, &spec.text, message));
            }
        };
        let branch = branch.or_else(|| record.str("branch"));
        let revision = match (revision, branch) {
            (Some(revision), Some(branch)) if revision != branch => {
                let message = format!("two revisions, {revision} and {branch}");
                return Err(Error::new(Kind::Validation, &spec.text, message));
            }
            (revision, branch) => revision.or(branch).map(str::to_owned),
        };
        let full = match name.contains('/') || spec.exact {
            true => None,
            false => cached(name, places)?,
        };
        let expanded = full.as_ref().is_some_and(|full| full != name);
        Ok(HubName { id: full.unwrap_or_else(|| name.clone()), revision, expanded })
    }

    /// Revision to request: the named one, or `main`.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

/// Full name of the cached model that a short name means, if there is one.
fn cached(name: &str, places: &Places) -> Result<Option<String>> {
    let places = Places { workspaces: None, ..places.clone() };
    match resolve::resolve(&Spec::parse(name)?, &places) {
        Ok(found) => Ok(Some(found.name)),
        Err(e) if e.kind == Kind::ModelNotFound => Ok(None),
        Err(e) => Err(e),
    }
}
