//! What `mlxk-health` does and says.

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

/// Checks the models that `input` names, else all; the answer is no if one is unhealthy.
///
/// With a `reporter`, every file is read too, and the reporter shows how far that is.
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
        // One document: an error that stands there already is the answer.
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

/// A model and the verdict on it.
#[derive(Debug)]
struct Checked {
    record: Record,
    health: Health,
    /// What reading every file showed, if that was asked for.
    verdict: Option<Verdict>,
    /// The name for people.
    label: String,
    /// Of a workspace, whether it is a managed one.
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

/// Reads every file, and makes what that shows part of the model's health.
fn read(model: &mut Inspected, reporter: &Reporter) -> Verdict {
    let verdict = verify::verify(&model.facts, &|progress| reporter.report(progress));
    model.health = verdict.health(model.health.clone());
    verdict
}

/// A workspace that was not named by its path goes by the name of its directory.
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

/// Writes what can be written already, and keeps the rest.
fn report(result: Result<Checked>, checked: &mut Vec<Checked>, out: &mut Output) -> Result<()> {
    let one = match result {
        Ok(one) => one,
        // That there is no such model is no error in the envelope: none was checked.
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
