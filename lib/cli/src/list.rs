//! The work of `mlxk-ls`: the listing of models.

mod flags;
mod table;

use std::fs;
use std::ops::ControlFlow;
use std::time::SystemTime;

use mlxk_core::list::{Listed, Listing, matching};
use mlxk_core::probe::File;
use mlxk_core::store::Revisions;
use mlxk_core::store::cache::Repo;
use mlxk_core::{Facts, Origin, Places, Record, Result, describe, printable};
use serde_json::{Value, json};

use crate::examine::{Examined, examine};
use crate::ordered::ordered;
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
    let models = candidates(query, places, out)?;
    match (style, out.form) {
        // A table needs all models for its widths, and an envelope is one document.
        (Style::Form(columns), Form::Human) => {
            let models = records(select(models, query, out)?);
            out.prose(&table::human(&models, columns, SystemTime::now()))
        }
        (Style::Form(_), Form::Json) => {
            let models = records(select(models, query, out)?);
            out.envelope(data(models))
        }
        (style, _) => {
            let write = |entry: Entry, out: &mut Output| match style {
                Style::Names => out.text(&name(&entry, query.revisions)),
                Style::Form(_) => out.lines([&entry.record]),
            };
            match query.sort {
                Some(_) => select(models, query, out)?.into_iter().try_for_each(|e| write(e, out)),
                None => each(models, query, out, write),
            }
        }
    }
}

fn records(entries: Vec<Entry>) -> Vec<Record> {
    entries.into_iter().map(|entry| entry.record).collect()
}

/// The selected models in the order of the query.
fn select(models: Vec<Listed>, query: &Query, out: &mut Output) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let unsorted = Query { limit: query.limit.filter(|_| query.sort.is_none()), ..query.clone() };
    each(models, &unsorted, out, |entry, _| {
        entries.push(entry);
        Ok(())
    })?;
    if let Some(sort) = query.sort {
        sort.apply(&mut entries);
    }
    entries.truncate(query.limit.unwrap_or(usize::MAX));
    Ok(entries)
}

/// Reads models in parallel, and calls `take` for each that the query selects, as soon as those before
/// it are read.
fn each(
    models: Vec<Listed>,
    query: &Query,
    out: &mut Output,
    mut take: impl FnMut(Entry, &mut Output) -> Result<()>,
) -> Result<()> {
    let now = SystemTime::now();
    let limit = query.limit.unwrap_or(usize::MAX);
    let (mut taken, mut hidden) = (0, 0);
    let read = |listed: Listed| entry(&listed, query);
    ordered(models, read, |read| {
        if taken == limit {
            return Ok(ControlFlow::Break(()));
        }
        let entry = match read {
            Ok(entry) => entry,
            // It was removed after the directory was listed.
            Err(e) if e.is_absent() => return Ok(ControlFlow::Continue(())),
            Err(e) => return out.error(&e).map(ControlFlow::Continue),
        };
        if query.filters.iter().all(|filter| filter.accepts(&entry, now)) {
            match query.all || is_usable(&entry.record) {
                true => {
                    take(entry, out)?;
                    taken += 1;
                }
                false => hidden += 1,
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if hidden > 0 && out.form == Form::Human {
        let text = format!("{hidden} not listed: unhealthy or not runnable");
        out.remark(&text, "--all --health lists them too");
    }
    Ok(())
}

/// The models of all patterns, each once, workspaces first and then by name. A pattern that selects
/// nothing is said, as is a place that cannot be read.
fn candidates(query: &Query, places: &Places, out: &mut Output) -> Result<Vec<Listed>> {
    if query.patterns.is_empty() {
        let Listing { models, unread } = matching(places, "", query.revisions)?;
        unread.iter().try_for_each(|e| out.error(e))?;
        if models.is_empty() && unread.is_empty() {
            out.remark_empty(places);
        }
        return Ok(models);
    }
    let (mut all, mut said): (Vec<Listed>, Vec<String>) = (Vec::new(), Vec::new());
    for pattern in &query.patterns {
        let Listing { models: selected, unread } = matching(places, pattern, query.revisions)?;
        // Each pattern meets the same places.
        for e in unread.iter().filter(|e| !said.contains(&e.to_string())).collect::<Vec<_>>() {
            said.push(e.to_string());
            out.error(e)?;
        }
        if selected.is_empty() {
            let message = format!("{pattern}: no model of that name");
            out.remark(&message, "without a pattern, --all lists every model");
        }
        for listed in selected {
            if all.iter().all(|known| known.found != listed.found) {
                all.push(listed);
            }
        }
    }
    if query.patterns.len() > 1 {
        all.sort_by(|a, b| a.found.name.cmp(&b.found.name));
    }
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
        revision: listed.found.revision.clone(),
        modified: Some(facts.modified),
        accessed: if asks_access { accessed(facts) } else { None },
        refs: if asks_refs { refs(facts) } else { Vec::new() },
        bits: describe::quantization(facts).and_then(|q| q["bits"].as_u64()),
    })
}

fn named(examined: &Examined, listed: &Listed) -> Record {
    match &listed.display_name {
        Some(name) => examined.record().with("display_name", name.as_str()),
        None => examined.record(),
    }
}

/// Time when a file of the model was last read, as far as the file system records it and tells.
fn accessed(facts: &Facts) -> Option<SystemTime> {
    let accessed = |file: &File| fs::metadata(facts.path(&file.path)).ok()?.accessed().ok();
    facts.files.iter().filter_map(accessed).max()
}

/// The branches and tags that point to the model's revision; none if they cannot be read.
fn refs(facts: &Facts) -> Vec<String> {
    let Origin::Cache { repo } = &facts.found.origin else {
        return Vec::new();
    };
    let repo = Repo { name: facts.found.name.clone(), path: repo.clone() };
    let here = |commit: &str| Some(commit) == facts.found.revision.as_deref();
    let refs = repo.refs().unwrap_or_default().into_iter();
    refs.filter(|r| here(&r.commit)).map(|r| r.name).collect()
}

/// The `data` of the envelope.
fn data(models: Vec<Record>) -> Value {
    let count = models.len();
    let models: Vec<Value> = models.into_iter().map(Value::from).collect();
    json!({"models": models, "count": count, "system": system::describe()})
}

/// The name on a line of its own; with the revision if all revisions are listed.
fn name(entry: &Entry, revisions: Revisions) -> String {
    let name = printable(entry.record.str("name").unwrap_or_default());
    match &entry.revision {
        Some(revision) if revisions == Revisions::All => {
            format!("{name}@{}\n", printable(revision))
        }
        _ => format!("{name}\n"),
    }
}

fn is_usable(model: &Record) -> bool {
    model.str("health") == Some("healthy")
        && model.get("runtime_compatible") == Some(&Value::Bool(true))
}
