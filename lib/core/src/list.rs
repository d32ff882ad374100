//! Every model on disk: the workspaces of the workspace home, and the cached models.

use std::path::Path;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::fnmatch;
use crate::spec::is_path;
use crate::store::{Found, Origin, Places, Revisions, cache};
use crate::workspace::{self, Workspace};

/// A model of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The model.
    pub found: Found,
    /// The name to show for a workspace: its path if the pattern was an absolute path, else the name
    /// of its directory. Cached models have no display name.
    pub display_name: Option<String>,
}

/// Models of a listing, and what could not be listed.
#[derive(Debug)]
pub struct Listing<T = Listed> {
    /// The models.
    pub models: Vec<T>,
    /// An error for each place that cannot be read.
    pub unread: Vec<Error>,
}

/// Every model of `places`: workspaces, then cached models, each sorted by name.
///
/// A place that does not exist holds nothing, and one that cannot be read hides no other.
pub fn all(places: &Places, revisions: Revisions) -> Listing<Found> {
    let mut all = Listing { models: Vec::new(), unread: Vec::new() };
    match workspace::home(places) {
        Ok(home) => all.models.extend(home.into_iter().map(Found::from)),
        Err(e) => all.unread.push(e),
    }
    match cache::repos(&places.hub) {
        Ok(repos) => {
            let found = repos.into_par_iter().flat_map_iter(|repo| repo.found(revisions));
            all.models.par_extend(found);
        }
        Err(e) => all.unread.push(e),
    }
    all
}

/// The models of `places` that `pattern` selects; the empty pattern selects all.
///
/// A pattern that is an explicit path selects a workspace, the children of a directory, or the
/// workspaces whose path begins with it. Any other pattern is part of a name, regardless of case, or a
/// shell pattern such as `*-4bit` of a whole name, optionally followed by `@` and the first digits of a commit.
///
/// # Errors
/// If a pattern is a path, and that cannot be read.
pub fn matching(places: &Places, pattern: &str, revisions: Revisions) -> Result<Listing> {
    if is_path(pattern) {
        let path = Path::new(pattern);
        let under = workspace::under(path)?.into_iter();
        let models = under.map(|workspace| by_path(workspace, path.is_absolute())).collect();
        return Ok(Listing { models, unread: Vec::new() });
    }
    let (part, commit) = match pattern.rsplit_once('@') {
        Some((part, commit)) => (part, Some(commit)),
        None => (pattern, None),
    };
    let revisions = if commit.is_some() { Revisions::All } else { revisions };
    let Listing { models: all, unread } = all(places, revisions);
    let mut models = Vec::new();
    for found in all {
        let display_name = match found.origin {
            Origin::Cache { .. } => None,
            Origin::Workspace => Some(workspace::file_name(&found.path)),
        };
        let name = display_name.as_deref().unwrap_or(&found.name);
        if contains(name, part) && has_prefix(found.revision.as_deref(), commit)
            || contains(name, pattern)
        {
            models.push(Listed { found, display_name });
        }
    }
    Ok(Listing { models, unread })
}

/// True if `part` occurs in `name`, regardless of case. A shell pattern must match the whole name, or
/// what follows the organization.
pub(crate) fn contains(name: &str, part: &str) -> bool {
    let (name, part) = (name.to_lowercase(), part.to_lowercase());
    match is_pattern(&part) {
        true => {
            let short = name.rsplit('/').next().unwrap_or(&name);
            fnmatch::matches(&part, &name) || fnmatch::matches(&part, short)
        }
        false => name.contains(&part),
    }
}

/// True if the text is a shell pattern with `*` or `?`, which occur in no name of the Hub.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

fn by_path(workspace: Workspace, absolute: bool) -> Listed {
    let name = match absolute {
        true => workspace.path.to_string_lossy().into_owned(),
        false => workspace.name.clone(),
    };
    Listed { found: workspace.into(), display_name: Some(name) }
}

/// True if `prefix` is not given, or `text` begins with it.
fn has_prefix(text: Option<&str>, prefix: Option<&str>) -> bool {
    prefix.is_none_or(|prefix| text.is_some_and(|text| text.starts_with(prefix)))
}
