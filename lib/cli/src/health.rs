//! What `mlxk-health` does and says.

use mlxk_core::store::{self, Listed, Revisions};
use mlxk_core::{Found, Health, Kind, Origin, Places, Record, Result, Target};
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::examine::{examine, find};
use crate::input::Input;
use crate::output::{Form, Output};

/// Checks the models that `input` names, else all; the answer is no if one is unhealthy.
pub fn check(input: Input, places: &Places, out: &mut Output) -> Result<()> {
    let mut checked = Vec::new();
    if input == Input::Nothing {
        let all = store::matching(places, "", Revisions::Current)?;
        if all.is_empty() {
            out.remark_empty(places);
        }
        let results = all.par_iter().map(|Listed { found, display_name }| {
            judge(found, Record::default(), display_name.clone())
        });
        report(results.collect(), &mut checked, out)?;
    }
    for batch in input.batches() {
        let results = batch.into_par_iter().map(|record| {
            let record = record?;
            let found = find(&record, places)?;
            let label = label(&record, &found);
            judge(&found, record, label)
        });
        report(results.collect(), &mut checked, out)?;
    }
    match out.form {
        Form::Ndjson => Ok(()),
        Form::Human => out.text(&human(&checked)),
        // One document: an error that stands there already is the answer.
        Form::Json if checked.is_empty() && out.answered() => Ok(()),
        Form::Json => out.envelope(data(&checked)),
    }
}

/// A model and the verdict on it.
#[derive(Debug)]
struct Checked {
    record: Record,
    health: Health,
    /// The name for people.
    label: String,
    /// Of a workspace, whether it is a managed one.
    managed: Option<bool>,
}

/// The record with all that is known of the model, and the fields that are not ours as they were.
fn judge(found: &Found, record: Record, label: Option<String>) -> Result<Checked> {
    let examined = examine(found)?;
    let managed = match found.origin {
        Origin::Cache { .. } => None,
        Origin::Workspace => Some(examined.facts.sentinel.object().is_some()),
    };
    let record = record.merge(examined.record());
    let label = label.unwrap_or_else(|| found.name.clone());
    Ok(Checked { record, health: examined.health, label, managed })
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
fn report(
    results: Vec<Result<Checked>>,
    checked: &mut Vec<Checked>,
    out: &mut Output,
) -> Result<()> {
    for result in results {
        match result {
            Ok(one) => {
                if !one.health.healthy {
                    out.deny();
                }
                match out.form {
                    Form::Ndjson => out.lines([&one.record])?,
                    Form::Human | Form::Json => checked.push(one),
                }
            }
            // That there is no such model is no error in the envelope: none was checked.
            Err(e) if e.kind == Kind::ModelNotFound => out.complain(&e)?,
            Err(e) => out.error(&e)?,
        }
    }
    Ok(())
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
