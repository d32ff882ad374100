//! Catalogue of the models that clients may name: cached models and workspaces.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mlxk_core::list::{self, Listing};
use mlxk_core::store::Revisions;
use mlxk_core::{Error, Found, Kind, Origin, Places, Result, Spec, Target, inspect, resolve};
use mlxk_processor::engine::ModelInfo;
use rayon::prelude::*;

/// Maximum number of names whose resolved models are kept.
const NAMES: usize = 256;

/// Catalogue of models: the directories that are searched, and the models of resolved names.
pub struct Catalogue {
    places: Places,
    /// Models that are loaded at the start, by the ids that clients use.
    own: BTreeMap<String, Found>,
    /// Models of resolved names. A revision that is pulled later is used for names without a
    /// revision only after a restart of the server.
    known: Mutex<BTreeMap<String, Found>>,
    /// True if only the models that are loaded at the start are served.
    closed: bool,
}

impl Catalogue {
    /// A catalogue of the models in `places`.
    pub fn new(places: Places) -> Catalogue {
        Catalogue { places, own: BTreeMap::new(), known: Mutex::default(), closed: false }
    }

    /// The catalogue with only the models that are loaded at the start.
    pub fn closed(self) -> Catalogue {
        Catalogue { closed: true, ..self }
    }

    /// Resolves the name or the path of a model that is loaded at the start, and adds it.
    ///
    /// # Errors
    /// If no model or more than one has this name.
    pub fn preload(&mut self, name: &str) -> Result<Found> {
        let found = resolve::resolve(&Spec::parse(name)?, &self.places)?;
        self.own.insert(id(&found), found.clone());
        Ok(found)
    }

    /// Resolves the name that a client gives for a model; paths are refused.
    ///
    /// # Errors
    /// [`Kind::ModelNotFound`], and if more than one model has this name.
    pub fn find(&self, name: &str) -> Result<Found> {
        if let Some(found) = self.own.get(name) {
            return Ok(found.clone());
        }
        if self.closed {
            let error = Error::new(Kind::ModelNotFound, name, "this server has one model alone");
            return Err(error.hint("GET /v1/models names it"));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(name) {
            return Ok(found.clone());
        }
        let spec = Spec::parse(name)?;
        if matches!(spec.target, Target::Path(_)) {
            let error = Error::new(Kind::ModelNotFound, "", "no model is called by a path");
            return Err(error.hint("GET /v1/models lists them"));
        }
        let found = resolve::resolve(&spec, &self.places).map_err(without_paths)?;
        if known.len() >= NAMES {
            known.clear();
        }
        known.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    /// Models that can run, those that are loaded at the start first; `loaded` are those in memory.
    ///
    /// # Errors
    /// If no place of models can be listed.
    pub fn list(&self, loaded: &[Found]) -> Result<Vec<ModelInfo>> {
        let all = match self.closed {
            true => Vec::new(),
            false => readable(list::all(&self.places, Revisions::Current))?,
        };
        let others = all.into_iter().filter(|found| !self.own.values().any(|own| own == found));
        let own: Vec<Found> = self.own.values().cloned().collect();
        let mut others: Vec<Found> = others.collect();
        others.sort_by_cached_key(id);
        let all: Vec<Found> = own.into_iter().chain(others).collect();
        // An unreadable or just removed model cannot run: mlxk-health(1) has the reason.
        let listed = all.par_iter().map(|found| listed(found, loaded).unwrap_or(None));
        Ok(listed.collect::<Vec<_>>().into_iter().flatten().collect())
    }
}

/// Models of a listing; its first error if there are none.
fn readable(listing: Listing<Found>) -> Result<Vec<Found>> {
    let Listing { models, unread } = listing;
    match unread.into_iter().next() {
        Some(e) if models.is_empty() => Err(e),
        _ => Ok(models),
    }
}

/// Id of a model in the API: its name in the cache, or the name of its workspace folder.
pub fn id(found: &Found) -> String {
    match found.origin {
        Origin::Cache { .. } => found.name.clone(),
        Origin::Workspace => last(&found.name),
    }
}

fn listed(found: &Found, loaded: &[Found]) -> Result<Option<ModelInfo>> {
    let plan = inspect(found)?.plan;
    Ok(plan.runnable.is_ok().then(|| ModelInfo {
        id: id(found),
        workspace: found.origin == Origin::Workspace,
        context_length: plan.context_length,
        loaded: loaded.contains(found),
        task: plan.task,
        encoder: plan.encoder,
    }))
}

/// The error with workspaces named by their directories, as clients must not see local paths.
fn without_paths(mut error: Error) -> Error {
    for name in &mut error.matches {
        *name = if name.starts_with('/') { last(name) } else { std::mem::take(name) };
    }
    if !error.matches.is_empty() {
        let names = error.matches.join(", ");
        error = error.hint(format!("one of {names}"));
    }
    error
}

fn last(path: &str) -> String {
    let name = Path::new(path).file_name();
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
