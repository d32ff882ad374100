//! The work of `mlxk-ls`: the listing of models.

mod flags;
mod table;

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use mlxk_core::list::{Listed, matching};
use mlxk_core::store::Revisions;
use mlxk_core::store::cache::Repo;
use mlxk_core::{Error, Facts, Origin, Places, Record, Result, describe};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::examine::{Examined, examine};
use crate::output::{Form, Output};
use crate::select::{Entry, Filter, Sort};
use crate::system;

pub use flags::ListFlags;
pub use table::Columns;

/// Selection and order of the models to list.
#[derive(Clone, Debug)]
pub struct Query {
    /// Parts of names, or paths; an empty list selects all models.
    pub patterns: Vec<String>,
    /// Revisions of a cached model.
    pub revisions: Revisions,
    /// Conditions that all must hold.
    pub filters: Vec<Filter>,
    /// Sort order; by name if absent.
    pub sort: Option<Sort>,
    /// Maximum number of models.
    pub limit: Option<usize>,
    /// True to include models that are unhealthy or cannot run.
    pub all: bool,
}

/// Style of a listing.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// The names alone.
    Names,
    /// Records in the form of the output; a table has these columns.
    Form(Columns),
}

/// Lists the models that `query` selects.
pub fn list(query: &Query, style: Style, places: &Places, out: &mut Output) -> Result<()> {
    let models = models(query, places, out)?;
    match (style, out.form) {
        (Style::Names, _) => out.text(&names(&models, query.revisions)),
        (Style::Form(columns), Form::Human) => {
            out.text(&table::human(&models, columns, SystemTime::now()))
        }
        (Style::Form(_), Form::Ndjson) => out.lines(&models),
        (Style::Form(_), Form::Json) => out.envelope(data(models)),
    }
}

/// Reads all models that the query may mean, and selects.
fn models(query: &Query, places: &Places, out: &mut Output) -> Result<Vec<Record>> {
    let found = candidates(query, places)?;
    if found.is_empty() && query.patterns.is_empty() {
        out.remark_empty(places);
    }
    let read: Vec<_> = found.par_iter().map(|listed| entry(listed, query)).collect();
    let mut entries = Vec::new();
    for entry in read {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(e) => out.error(&e)?,
        }
    }
    let now = SystemTime::now();
    entries.retain(|entry| query.filters.iter().all(|filter| filter.accepts(entry, now)));
    let accepted = entries.len();
    entries.retain(|entry| query.all || is_usable(&entry.record));
    let hidden = accepted - entries.len();
    if hidden > 0 && out.form == Form::Human {
        let text = format!("{hidden} not listed: unhealthy or not runnable");
        out.remark(&text, "--all --health lists them too");
    }
    if let Some(sort) = query.sort {
        sort.apply(&mut entries);
    }
    entries.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(entries.into_iter().map(|entry| entry.record).collect())
}

/// The models of all patterns, each once, workspaces first and then by name.
fn candidates(query: &Query, places: &Places) -> Result<Vec<Listed>> {
    if query.patterns.is_empty() {
        return matching(places, "", query.revisions);
    }
    let mut all: Vec<Listed> = Vec::new();
    for pattern in &query.patterns {
        for listed in matching(places, pattern, query.revisions)? {
            if all.iter().all(|known| known.found != listed.found) {
                all.push(listed);
            }
        }
    }
    all.sort_by(|a, b| a.found.name.cmp(&b.found.name));
    Ok(all)
}

fn entry(listed: &Listed, query: &Query) -> Result<Entry> {
    let examined = examine(&listed.found)?;
    let facts = &examined.model.facts;
    let asks_access =
        query.sort.is_some_and(Sort::asks_access) || query.filters.iter().any(Filter::asks_access);
    let asks_refs = query.filters.iter().any(Filter::asks_refs);
    Ok(Entry {
        record: named(&examined, listed),
        modified: Some(facts.modified),
        accessed: if asks_access { accessed(facts)? } else { None },
        refs: if asks_refs { refs(facts)? } else { Vec::new() },
        bits: describe::quantization(facts).and_then(|q| q["bits"].as_u64()),
    })
}

fn named(examined: &Examined, listed: &Listed) -> Record {
    match &listed.display_name {
        Some(name) => examined.record().with("display_name", name.as_str()),
        None => examined.record(),
    }
}

/// Time when a file of the model was last read, as far as the file system records it.
fn accessed(facts: &Facts) -> Result<Option<SystemTime>> {
    let mut latest = None;
    for file in &facts.files {
        let path = facts.path(&file.path);
        let metadata = fs::metadata(&path).map_err(|e| Error::io(&path, e))?;
        latest = latest.max(recorded(&path, metadata.accessed())?);
    }
    Ok(latest)
}

fn recorded(path: &Path, time: io::Result<SystemTime>) -> Result<Option<SystemTime>> {
    match time {
        Ok(time) => Ok(Some(time)),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// The branches and tags that point to the model's revision.
fn refs(facts: &Facts) -> Result<Vec<String>> {
    let Origin::Cache { repo } = &facts.found.origin else {
        return Ok(Vec::new());
    };
    let repo = Repo { name: facts.found.name.clone(), path: repo.clone() };
    let here = |commit: &str| Some(commit) == facts.found.revision.as_deref();
    let refs = repo.refs()?.into_iter();
    Ok(refs.filter(|r| here(&r.commit)).map(|r| r.name).collect())
}

/// The `data` of the envelope.
fn data(models: Vec<Record>) -> Value {
    let count = models.len();
    let models: Vec<Value> = models.into_iter().map(Value::from).collect();
    json!({"models": models, "count": count, "system": system::describe()})
}

/// The names, one per line; with the revision if all revisions are listed.
fn names(models: &[Record], revisions: Revisions) -> String {
    let name = |model: &Record| match (model.str("name"), model.str("hash")) {
        (Some(name), Some(hash)) if revisions == Revisions::All => format!("{name}@{hash}\n"),
        (name, _) => format!("{}\n", name.unwrap_or_default()),
    };
    models.iter().map(name).collect()
}

fn is_usable(model: &Record) -> bool {
    model.str("health") == Some("healthy")
        && model.get("runtime_compatible") == Some(&Value::Bool(true))
}
