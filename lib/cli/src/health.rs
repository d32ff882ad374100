//! The work of `mlxk-health`: health checks of models, and their report.

use std::ops::ControlFlow;

use mlxk_core::list::{Listed, Listing, matching};
use mlxk_core::resolve::Resolver;
use mlxk_core::store::Revisions;
use mlxk_core::verify::{self, Verdict};
use mlxk_core::{
    Facts, Found, Health, Inspected, Kind, Origin, Places, Record, Result, Target, printable,
};
use serde_json::{Value, json};

use crate::examine::examine;
use crate::human;
use crate::input::Input;
use crate::ordered::ordered;
use crate::output::{Form, Output};
use crate::progress::Reporter;

/// Depth of a check.
#[derive(Clone, Copy, Debug)]
pub struct Depth<'a> {
    /// Reporter of the progress of reading every file; no file is read without one.
    pub reporter: Option<&'a Reporter<'static>>,
    /// True if the models in the `.hf_cache` of workspaces are checked too.
    pub artifacts: bool,
}

/// Checks the models that `input` names, or else all; the run fails if one is unhealthy.
pub fn check(input: Input, depth: Depth, places: &Places, out: &mut Output) -> Result<()> {
    let reporter = depth.reporter;
    let mut checked = Vec::new();
    if input == Input::Nothing {
        let Listing { models: all, unread } = matching(places, "", Revisions::Current)?;
        unread.iter().try_for_each(|e| out.error(e))?;
        if all.is_empty() && unread.is_empty() {
            out.remark_empty(places);
        }
        let work = |Listed { found, display_name }: Listed| {
            judge(&found, Record::default(), display_name, depth)
        };
        ordered(all, work, |result| match result {
            // It was removed after the directory was listed.
            Err(e) if e.is_absent() => Ok(ControlFlow::Continue(())),
            result => aside(reporter, || report(result, &mut checked, out)),
        })?;
    }
    for batch in input.batches() {
        let resolver = Resolver::new(places);
        let work = |record: Result<Record>| {
            let record = record?;
            let found = resolver.resolve(&record.spec()?)?;
            let label = label(&record, &found);
            judge(&found, record, label, depth)
        };
        ordered(batch, work, |result| aside(reporter, || report(result, &mut checked, out)))?;
    }
    match out.form {
        Form::Ndjson => Ok(()),
        Form::Human => out.prose(&report_text(&checked)),
        Form::Json => out.envelope(data(&checked)),
    }
}

fn aside<T>(reporter: Option<&Reporter>, write: impl FnOnce() -> T) -> T {
    match reporter {
        Some(reporter) => reporter.aside(write),
        None => write(),
    }
}

/// A model and the result of its check.
#[derive(Debug)]
struct Checked {
    record: Record,
    health: Health,
    /// Verdict from reading every file; `None` without `--verify`.
    verdict: Option<Verdict>,
    /// What a healthy embedding model or reranker makes of texts, in words.
    encodes: Option<String>,
    /// Name shown in text output.
    label: String,
    /// True if the workspace is managed; `None` for a cached model.
    managed: Option<bool>,
    /// Models in the `.hf_cache` of the workspace, if they were checked.
    artifacts: Vec<Record>,
}

/// The record with all that is known of the model, and the fields that are not ours as they were.
fn judge(found: &Found, record: Record, label: Option<String>, depth: Depth) -> Result<Checked> {
    let mut examined = examine(found)?;
    let managed = match found.origin {
        Origin::Cache { .. } => None,
        Origin::Workspace => Some(is_managed(&examined.model.facts)),
    };
    let verdict = depth.reporter.map(|reporter| read(&mut examined.model, reporter));
    let mut record = record.merge(examined.record());
    if let Some(verdict) = &verdict {
        record = record
            .with("verified", verdict.bad.is_empty() && verdict.unknown.is_empty())
            .with("bad_files", json!(verdict.bad));
    }
    let artifacts = if depth.artifacts { artifacts(found)? } else { Vec::new() };
    if !artifacts.is_empty() {
        record = record.with("hf_cache", artifacts.iter().cloned().collect::<Value>());
    }
    let label = label.unwrap_or_else(|| found.name.clone());
    let Inspected { health, plan, .. } = examined.model;
    let encodes = plan.encoder.filter(|_| health.healthy).map(|encoder| {
        let kind = plan.model_type;
        format!("{kind}: {}", encoder.summary())
    });
    Ok(Checked { record, health, verdict, encodes, label, managed, artifacts })
}

fn is_managed(facts: &Facts) -> bool {
    facts.sentinel.get("managed") == Some(Value::Bool(true))
}

/// The models in the `.hf_cache` of a workspace, which libraries fetch there while a model runs.
fn artifacts(workspace: &Found) -> Result<Vec<Record>> {
    if workspace.origin != Origin::Workspace {
        return Ok(Vec::new());
    }
    let root = workspace.path.join(".hf_cache");
    let places = Places { hub: root.join("hub"), root, workspaces: None };
    let Listing { models, unread } = matching(&places, "", Revisions::Current)?;
    if let Some(e) = unread.into_iter().next() {
        return Err(e);
    }
    let mut records = Vec::new();
    for Listed { found, .. } in models {
        match examine(&found) {
            Ok(examined) => records.push(examined.record()),
            Err(e) if e.is_absent() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(records)
}

/// Reads every file, and merges the verdict into the model's health.
fn read(model: &mut Inspected, reporter: &Reporter) -> Verdict {
    let verdict = verify::verify(&model.facts, &|progress| reporter.report(progress));
    model.health = verdict.health(model.health.clone());
    verdict
}

/// The label of a workspace that was not named by its path: the name of its directory.
fn label(record: &Record, found: &Found) -> Option<String> {
    match (&found.origin, found.path.file_name()) {
        (Origin::Workspace, Some(name)) if !named_by_path(record) => {
            Some(name.to_string_lossy().into_owned())
        }
        _ => None,
    }
}

fn named_by_path(record: &Record) -> bool {
    record.spec().is_ok_and(|spec| matches!(spec.target, Target::Path(_)))
}

/// Writes a result at once if the form allows it, and otherwise keeps it in `checked`.
fn report(
    result: Result<Checked>,
    checked: &mut Vec<Checked>,
    out: &mut Output,
) -> Result<ControlFlow<()>> {
    let one = match result {
        Ok(one) => one,
        // A missing model is not an error in the envelope: no model was checked.
        Err(e) if e.kind == Kind::ModelNotFound => {
            return out.complain(&e).map(ControlFlow::Continue);
        }
        Err(e) => return out.error(&e).map(ControlFlow::Continue),
    };
    if !one.health.healthy {
        out.deny();
    }
    if let Some(unknown @ [first, ..]) = one.verdict.as_ref().map(|verdict| &verdict.unknown[..]) {
        let (count, first) = (human::count(unknown.len(), "file"), first.display());
        let message = format!("{}: not verified: {count}, {first} first", one.label);
        out.remark(&message, "there is no listing or digest to compare them with");
    }
    match out.form {
        Form::Ndjson => out.lines([&one.record])?,
        Form::Human | Form::Json => checked.push(one),
    }
    Ok(ControlFlow::Continue(()))
}

fn report_text(checked: &[Checked]) -> String {
    let (healthy, unhealthy) = split(checked);
    let mut text = String::new();
    if checked.len() != 1 {
        let (all, good, bad) = (checked.len(), healthy.len(), unhealthy.len());
        text += &format!("Summary: total {all}, healthy {good}, unhealthy {bad}\n");
    }
    for (verdict, models) in [("healthy  ", healthy), ("unhealthy", unhealthy)] {
        for one in models {
            let (label, reason) = (printable(&one.label), &one.health.reason);
            let encodes = one.encodes.as_ref().map(|encodes| format!(" ({encodes})"));
            text += &format!("{verdict} {label} — {reason}{}\n", encodes.unwrap_or_default());
            for bad in one.verdict.iter().flat_map(|verdict| &verdict.bad) {
                text += &format!("          {bad}\n");
            }
            text.extend(one.artifacts.iter().map(artifact));
        }
    }
    text
}

/// The line of a model in the `.hf_cache` of a workspace.
fn artifact(record: &Record) -> String {
    let field = |key| printable(record.str(key).unwrap_or_default());
    let size = record.get("size_bytes").and_then(Value::as_u64).map(human::size);
    let size = size.unwrap_or_default();
    format!("          .hf_cache: {} — {}, {size}\n", field("name"), field("health"))
}

/// The `data` of the envelope.
fn data(checked: &[Checked]) -> Value {
    let (healthy, unhealthy) = split(checked);
    let entries = |models: &[&Checked]| models.iter().map(|one| entry(one)).collect::<Vec<_>>();
    json!({
        "healthy": entries(&healthy),
        "unhealthy": entries(&unhealthy),
        "summary": {
            "total": checked.len(),
            "healthy_count": healthy.len(),
            "unhealthy_count": unhealthy.len(),
        },
    })
}

fn entry(one: &Checked) -> Value {
    let status = if one.health.healthy { "healthy" } else { "unhealthy" };
    let mut entry = json!({"name": one.label, "status": status, "reason": one.health.reason});
    if let Some(managed) = one.managed {
        entry["managed"] = json!(managed);
    }
    if !one.artifacts.is_empty() {
        entry["hf_cache"] = one.artifacts.iter().cloned().collect();
    }
    entry
}

fn split(checked: &[Checked]) -> (Vec<&Checked>, Vec<&Checked>) {
    checked.iter().partition(|one| one.health.healthy)
}
