//! Resolution of a name to one model on disk, or to an error that lists the candidates.

use std::sync::OnceLock;

use strsim::jaro_winkler;

use crate::error::{Error, Kind, Result};
use crate::list::contains;
use crate::spec::{Spec, Target};
use crate::store::cache::{self, Repo, Snapshot};
use crate::store::{Found, Places, Revisions};
use crate::workspace::{self, Workspace};

/// Finds the model that `spec` names.
///
/// The order of search is: an explicit path; the exact name of a workspace; the exact name of a
/// cached model; that name under `mlx-community/`; part of a name, in workspaces and cache together.
/// Exact names take precedence over partial ones, and several partial matches are an error.
///
/// # Errors
/// `ModelNotFound`, `HashNotFound`, or `AmbiguousMatch`; the last two with `matches`.
pub fn resolve(spec: &Spec, places: &Places) -> Result<Found> {
    Resolver::new(places).resolve(spec)
}

/// Resolution of many names over one listing of the models on disk, which is made when a name first
/// needs it.
#[derive(Debug)]
pub struct Resolver<'a> {
    places: &'a Places,
    repos: OnceLock<Result<Vec<Repo>>>,
    workspaces: OnceLock<Result<Vec<Workspace>>>,
}

impl<'a> Resolver<'a> {
    /// A resolver that has listed nothing yet.
    pub fn new(places: &'a Places) -> Resolver<'a> {
        Resolver { places, repos: OnceLock::new(), workspaces: OnceLock::new() }
    }

    /// Finds the model that `spec` names, as [`resolve`] does.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn resolve(&self, spec: &Spec) -> Result<Found> {
        find(spec, self)
    }

    fn repos(&self) -> Result<&[Repo]> {
        let repos = self.repos.get_or_init(|| cache::repos(&self.places.hub));
        repos.as_deref().map_err(Clone::clone)
    }

    fn workspaces(&self) -> Result<&[Workspace]> {
        let workspaces = self.workspaces.get_or_init(|| workspace::home(self.places));
        workspaces.as_deref().map_err(Clone::clone)
    }
}

fn find(spec: &Spec, places: &Resolver) -> Result<Found> {
    let (name, revision) = match &spec.target {
        Target::Path(path) => {
            let workspace = workspace::at(path)?.ok_or_else(|| no_workspace(spec))?;
            return Ok(workspace.into());
        }
        Target::Name { name, revision } => (name, revision.as_deref()),
    };
    let full = cache::decode(name).unwrap_or_else(|| name.clone());
    // Input may name thousands of models, so the cache is not listed for each of them.
    if let (true, Some(repo)) = (spec.exact, cache::repo(&places.places.hub, &full)) {
        return revision_of(&repo, revision);
    }
    let repos = places.repos()?;
    if spec.exact {
        return Err(not_found(spec, repos));
    }
    let workspaces = places.workspaces()?;
    if let Some(workspace) = workspaces.iter().find(|w| w.name == spec.text) {
        return Ok(workspace.clone().into());
    }
    let community = format!("mlx-community/{full}");
    if let Some(repo) = exact(repos, &full).or_else(|| exact(repos, &community)) {
        return revision_of(repo, revision);
    }
    partial(spec, &full, revision, workspaces, repos)
}

/// The cached model called `name`, which may contain `--` or more than one `/`.
fn exact<'a>(repos: &'a [Repo], name: &str) -> Option<&'a Repo> {
    let directory = cache::encode(name);
    repos.iter().find(|repo| cache::encode(&repo.name) == directory)
}

fn partial(
    spec: &Spec,
    part: &str,
    revision: Option<&str>,
    workspaces: &[Workspace],
    repos: &[Repo],
) -> Result<Found> {
    let workspaces = workspaces.iter().filter(|w| contains(&w.name, &spec.text));
    let workspaces: Vec<&Workspace> = workspaces.collect();
    let mut candidates: Vec<&Repo> = repos.iter().filter(|r| contains(&r.name, part)).collect();
    if let (Some(revision), true) = (revision, candidates.len() > 1) {
        candidates = having(candidates, revision)?;
    }
    match (workspaces.as_slice(), candidates.as_slice()) {
        ([], []) => Err(not_found(spec, repos)),
        ([workspace], []) => Ok((*workspace).clone().into()),
        ([], [repo]) => revision_of(repo, revision),
        _ => Err(ambiguous(spec, &workspaces, &candidates)),
    }
}

/// The members of `repos` that have the revision `wanted`; all of them if none has it.
fn having<'a>(repos: Vec<&'a Repo>, wanted: &str) -> Result<Vec<&'a Repo>> {
    let mut having = Vec::new();
    for repo in &repos {
        if !hits(repo, &repo.snapshots()?, wanted)?.is_empty() {
            having.push(*repo);
        }
    }
    Ok(if having.is_empty() { repos } else { having })
}

/// The snapshot of `repo` for `revision`: a ref or the first digits of a commit; without one, the
/// current snapshot.
fn revision_of(repo: &Repo, revision: Option<&str>) -> Result<Found> {
    let Some(wanted) = revision else {
        return Ok(repo.found(Revisions::Current).pop().unwrap_or_else(|| repo.bare()));
    };
    let snapshots = repo.snapshots()?;
    let hits = hits(repo, &snapshots, wanted)?;
    let subject = format!("{}@{wanted}", repo.name);
    let (kind, message, of) = match hits.as_slice() {
        [hit] => return Ok(repo.at(hit.revision.clone(), hit.path.clone())),
        [] => (Kind::HashNotFound, "no such revision in the cache", snapshots.iter().collect()),
        _ => (Kind::AmbiguousMatch, "several revisions begin so", hits),
    };
    let revisions: Vec<_> = of.iter().map(|s| s.revision.clone()).collect();
    let error = Error::new(kind, subject, message);
    let error = match revisions.as_slice() {
        [] => error,
        _ => error.hint(format!("there is {}", first(&revisions))),
    };
    Err(error.matches(revisions))
}

/// The snapshots that `wanted` names: a ref, a full commit hash, or else a prefix of commit hashes.
fn hits<'a>(repo: &Repo, snapshots: &'a [Snapshot], wanted: &str) -> Result<Vec<&'a Snapshot>> {
    let refs = repo.refs()?;
    let commit = refs.iter().find(|r| r.name == wanted).map_or(wanted, |r| r.commit.as_str());
    if let Some(exact) = snapshots.iter().find(|s| s.revision == commit) {
        return Ok(vec![exact]);
    }
    Ok(snapshots.iter().filter(|s| s.revision.starts_with(wanted)).collect())
}

fn ambiguous(spec: &Spec, workspaces: &[&Workspace], repos: &[&Repo]) -> Error {
    let workspaces = workspaces.iter().map(|w| w.path.to_string_lossy().into_owned());
    let matches: Vec<_> = workspaces.chain(repos.iter().map(|r| r.name.clone())).collect();
    let message = format!("ambiguous: matches {} models", matches.len());
    Error::new(Kind::AmbiguousMatch, &spec.text, message)
        .hint(format!("be more specific: {}", first(&matches)))
        .matches(matches)
}

fn not_found(spec: &Spec, repos: &[Repo]) -> Error {
    let error = Error::new(Kind::ModelNotFound, &spec.text, "no such model");
    match nearest(&spec.text, repos) {
        Some(name) => error.hint(format!("did you mean {name}?")),
        None => error.hint("`mlxk ls --all` shows what there is"),
    }
}

fn no_workspace(spec: &Spec) -> Error {
    Error::new(Kind::ModelNotFound, &spec.text, "no config.json there")
        .hint("what starts with / or . is the directory of a model, not a name")
}

/// The first names in one line.
fn first(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let line = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{line}, …") } else { line }
}

/// The cached model whose name is most similar to `text`, if one is similar.
fn nearest<'a>(text: &str, repos: &'a [Repo]) -> Option<&'a str> {
    let text = text.to_lowercase();
    let likeness = |name: &str| {
        let short = name.rsplit('/').next().unwrap_or(name);
        jaro_winkler(&text, &name.to_lowercase()).max(jaro_winkler(&text, &short.to_lowercase()))
    };
    let scored = repos.iter().map(|repo| (likeness(&repo.name), repo.name.as_str()));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.85).then_some(best.1)
}
