//! The work of `mlxk-health`: health checks of models, and their report.

use mlxk_core::list::{Listed, matching};
use mlxk_core::store::Revisions;
use mlxk_core::verify::{self, Verdict};
use mlxk_core::{Found, Health, Inspected, Kind, Origin, Places, Record, Result, Target};
use serde_json::{Value, json};

use crate::examine::{examine, find};
use crate::input::Input;
use crate::ordered::ordered;
use crate::output::{Form, Output};
use crate::progress::Reporter;

/// Checks the models that `input` names, or else all; the run fails if one is unhealthy.
///
/// With a `reporter`, every file is read too, and the reporter shows the progress.
pub fn check(
    input: Input,
    reporter: Option<&Reporter>,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    let mut checked = Vec::new();
    if input == Input::Nothing {
        let all = matching(places, "", Revisions::Current)?;
        if all.is_empty() {
            out.remark_empty(places);
        }
        let work = |Listed { found, display_name }: Listed| {
            judge(&found, Record::default(), display_name, reporter)
        };
        ordered(all, work, |result| aside(reporter, || report(result, &mut checked, out)))?;
    }
    for batch in input.batches() {
        let work = |record: Result<Record>| {
            let record = record?;
            let found = find(&record, places)?;
            let label = label(&record, &found);
            judge(&found, record, label, reporter)
        };
        ordered(batch, work, |result| aside(reporter, || report(result, &mut checked, out)))?;
    }
    match out.form {
        Form::Ndjson => Ok(()),
        Form::Human => out.text(&human(&checked)),
        // The envelope is one document: an error already written is the answer.
        Form::Json if checked.is_empty() && out.answered() => Ok(()),
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
    /// Name shown in text output.
    label: String,
    /// True if the workspace is managed; `None` for a cached model.
    managed: Option<bool>,
}

/// The record with all that is known of the model, and the fields that are not ours as they were.
fn judge(
    found: &Found,
    record: Record,
    label: Option<String>,
    reporter: Option<&Reporter>,
) -> Result<Checked> {
    let mut examined = examine(found)?;
    let managed = match found.origin {
        Origin::Cache { .. } => None,
        Origin::Workspace => Some(examined.model.facts.sentinel.object().is_some()),
    };
    let verdict = reporter.map(|reporter| read(&mut examined.model, reporter));
    let mut record = record.merge(examined.record());
    if let Some(verdict) = &verdict {
        record = record
            .with("verified", verdict.bad.is_empty() && verdict.unknown.is_empty())
            .with("bad_files", json!(verdict.bad));
    }
    let label = label.unwrap_or_else(|| found.name.clone());
    Ok(Checked { record, health: examined.model.health, verdict, label, managed })
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
fn report(result: Result<Checked>, checked: &mut Vec<Checked>, out: &mut Output) -> Result<()> {
    let one = match result {
        Ok(one) => one,
        // A missing model is not an error in the envelope: no model was checked.
        Err(e) if e.kind == Kind::ModelNotFound => return out.complain(&e),
        Err(e) => return out.error(&e),
    };
    if !one.health.healthy {
        out.deny();
    }
    if let Some(unknown @ [first, ..]) = one.verdict.as_ref().map(|verdict| &verdict.unknown[..]) {
        let (count, first) = (unknown.len(), first.display());
        let message = format!("{}: not verified: {count} files, {first} first", one.label);
        out.remark(&message, "there is no listing or digest to compare them with");
    }
    match out.form {
        Form::Ndjson => out.lines([&one.record]),
        Form::Human | Form::Json => {
            checked.push(one);
            Ok(())
        }
    }
}

fn human(checked: &[Checked]) -> String {
    let (healthy, unhealthy) = split(checked);
    let mut text = String::new();
    if checked.len() != 1 {
        let (all, good, bad) = (checked.len(), healthy.len(), unhealthy.len());
        text += &format!("Summary: total {all}, healthy {good}, unhealthy {bad}\n");
    }
    for (verdict, models) in [("healthy  ", healthy), ("unhealthy", unhealthy)] {
        for one in models {
            text += &format!("{verdict} {} — {}\n", one.label, one.health.reason);
            for bad in one.verdict.iter().flat_map(|verdict| &verdict.bad) {
                text += &format!("          {}\n", bad);
            }
        }
    }
    text
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
    entry
}

fn split(checked: &[Checked]) -> (Vec<&Checked>, Vec<&Checked>) {
    checked.iter().partition(|one| one.health.healthy)
}
