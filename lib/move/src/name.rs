//! Which model on the Hub a record or a typed name means.

use mlxk_core::{Error, Kind, Places, Record, Result, Target, resolve};
use mlxk_hub::pull::MAIN;

/// A model on the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `org/name`
    pub id: String,
    /// A branch, tag or commit, if one was named.
    pub revision: Option<String>,
    /// True if a shorter name was given.
    pub expanded: bool,
}

impl Wanted {
    /// The revision to ask for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

/// The model that `record` names, at `branch` or at the revision behind an `@`, or else at the
/// branch that a record of a push has.
///
/// A name with a slash is taken literally, and so is that of a record from a listing, whose `hash`
/// says what is here and not what is wanted. A shorter name may mean a model that is in the cache.
pub fn wanted(record: &Record, branch: Option<&str>, places: &Places) -> Result<Wanted> {
    let spec = record.spec()?;
    let (name, revision) = match &spec.target {
        Target::Name { name, revision } => (name, revision.as_deref().filter(|_| !spec.exact)),
        Target::Path(_) => {
            return Err(Error::new(
                Kind::WorkspaceModel,
                &spec.text,
                "a path: no model on the Hub",
            ));
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
    Ok(Wanted { id: full.unwrap_or_else(|| name.clone()), revision, expanded })
}

/// The cached model that a short name means; none if it means none.
fn cached(name: &str, places: &Places) -> Result<Option<String>> {
    let places = Places { workspaces: None, ..places.clone() };
    match resolve::resolve(&mlxk_core::Spec::parse(name)?, &places) {
        Ok(found) => Ok(Some(found.name)),
        Err(e) if e.kind == Kind::ModelNotFound => Ok(None),
        Err(e) => Err(e),
    }
}
