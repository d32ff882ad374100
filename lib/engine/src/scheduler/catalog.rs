//! The models that can be asked: those of the cache and of the folder of workspaces.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mlxk_core::store::Revisions;
use mlxk_core::{
    Error, Found, Kind, Origin, Places, Result, Spec, Target, Task, inspect, list, resolve,
};
use mlxk_processor::engine::ModelInfo;
use rayon::prelude::*;

/// Names whose models are remembered.
const NAMES: usize = 256;

/// Where models are looked for, and what was found.
pub struct Catalogue {
    places: Places,
    /// Those that are loaded at the start, by the names that clients know them by.
    own: BTreeMap<String, Found>,
    /// What names were found to mean. A model that is fetched anew is another revision, which
    /// requests get that name none once the server is started again.
    known: Mutex<BTreeMap<String, Found>>,
    /// Whether there are no others.
    closed: bool,
}

impl Catalogue {
    /// Of the models in `places`.
    pub fn new(places: Places) -> Catalogue {
        Catalogue { places, own: BTreeMap::new(), known: Mutex::default(), closed: false }
    }

    /// Of those alone that are loaded at the start.
    pub fn closed(self) -> Catalogue {
        Catalogue { closed: true, ..self }
    }

    /// Finds a model that its owner names: by a path too.
    pub fn preload(&mut self, name: &str) -> Result<Found> {
        let found = resolve::resolve(&Spec::parse(name)?, &self.places)?;
        self.own.insert(id(&found), found.clone());
        Ok(found)
    }

    /// Finds a model that a client names: never by a path.
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

    /// All that can run, those that are loaded at the start first.
    pub fn list(&self, loaded: &[Found]) -> Result<Vec<ModelInfo>> {
        let all = match self.closed {
            true => Vec::new(),
            false => list::all(&self.places, Revisions::Current)?,
        };
        let others = all.into_iter().filter(|found| !self.own.values().any(|own| own == found));
        let own: Vec<Found> = self.own.values().cloned().collect();
        let mut others: Vec<Found> = others.collect();
        others.sort_by_cached_key(id);
        let all: Vec<Found> = own.into_iter().chain(others).collect();
        // What cannot be read, or was removed just now, cannot run: mlxk-health(1) tells why.
        let listed = all.par_iter().map(|found| listed(found, loaded).unwrap_or(None));
        Ok(listed.collect::<Vec<_>>().into_iter().flatten().collect())
    }
}

/// What clients call a model.
pub fn id(found: &Found) -> String {
    match found.origin {
        Origin::Cache { .. } => found.name.clone(),
        Origin::Workspace => last(&found.name),
    }
}

fn listed(found: &Found, loaded: &[Found]) -> Result<Option<ModelInfo>> {
    let plan = inspect(found)?.plan;
    let runs = plan.runnable.is_ok() && plan.task != Task::Embedding;
    Ok(runs.then(|| ModelInfo {
        id: id(found),
        workspace: found.origin == Origin::Workspace,
        context_length: plan.context_length,
        loaded: loaded.contains(found),
    }))
}

/// Workspaces are told by their names.
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
