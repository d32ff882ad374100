//! The work of `mlxk-rm`: removal of models, and the report of it.

use std::time::{Duration, SystemTime};

use mlxk_core::list::{Listed, Listing, is_pattern, matching};
use mlxk_core::store::Revisions;
use mlxk_core::store::deletion::Deletion;
use mlxk_core::store::prune::{self, Pruning};
use mlxk_core::store::remove::{self, Request};
use mlxk_core::{Error, Found, Kind, Origin, Places, Record, Result, Spec, Target, printable};
use serde_json::{Value, json};

use crate::examine::find;
use crate::human;
use crate::input::Input;
use crate::output::{Form, Output};

/// Time without progress after which pruning treats a download as abandoned.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Options of a removal.
#[derive(Clone, Copy, Debug)]
pub struct Care {
    /// True if part of a name suffices, and a download in progress does not prevent removal.
    pub force: bool,
    /// True if the removal is only planned and reported.
    pub dry_run: bool,
    /// True if only models in the cache of a test may be removed.
    pub only_tests: bool,
}

/// Removes the models that `input` names.
pub fn remove(input: Input, care: Care, places: &Places, out: &mut Output) -> Result<()> {
    for record in input.batches().flatten() {
        let (records, refusal) = match record.and_then(|record| expand(record, care, places)) {
            Ok(records) => (records, None),
            Err(e) => (Vec::new(), Some(e)),
        };
        let removed = |record| remove_one(record, care, places, out).err();
        let refusals: Vec<Error> = records.into_iter().filter_map(removed).chain(refusal).collect();
        refusals.iter().try_for_each(|e| refuse(e, out))?;
    }
    Ok(())
}

/// The record, or for a shell pattern such as `test-*` a record of each cached model that it matches.
fn expand(record: Record, care: Care, places: &Places) -> Result<Vec<Record>> {
    let spec = record.spec()?;
    let pattern = match &spec.target {
        Target::Name { name, revision: None } if !spec.exact && is_pattern(name) => name,
        _ => return Ok(vec![record]),
    };
    let cached = |listed: &Listed| matches!(listed.found.origin, Origin::Cache { .. });
    let Listing { models, unread } = matching(places, pattern, Revisions::Current)?;
    let found = models.into_iter().filter(cached);
    let names: Vec<String> = found.map(|listed| listed.found.name).collect();
    let count = human::count(names.len(), "model");
    match names.is_empty() {
        true => Err(unread.into_iter().next().unwrap_or_else(|| {
            Error::new(Kind::ModelNotFound, pattern, "no model of such a name")
        })),
        false if !care.force && !care.dry_run => {
            let error = Error::new(Kind::AmbiguousMatch, pattern, format!("would remove {count}"));
            Err(error.hint("--force removes them; --dry-run lists them").matches(names))
        }
        false => Ok(names.iter().map(|name| record.clone().with("name", name.as_str())).collect()),
    }
}

/// Removes files that no name refers to any more: see [`mlxk_core::store::prune`].
pub fn prune(care: Care, places: &Places, out: &mut Output) -> Result<()> {
    let before = SystemTime::now() - ABANDONED;
    let Pruning { deletion: plan, unreadable } = prune::plan(places, before)?;
    for e in unreadable {
        out.remark(&format!("{e}"), "it was left as it is");
    }
    let done = match care.dry_run {
        true => Done { action: "prune", bytes: plan.bytes, plan: &plan },
        false => {
            Done { action: "pruned", bytes: prune::execute(places, before, &plan)?, plan: &plan }
        }
    };
    write(&done, Record::default(), &places.hub.display().to_string(), out)
}

fn remove_one(record: Record, care: Care, places: &Places, out: &mut Output) -> Result<()> {
    let spec = record.spec()?;
    let found = find(&record, places)?;
    check_revision(&record, &found)?;
    let revision_only = matches!(&spec.target, Target::Name { revision: Some(_), .. });
    let request = Request {
        found: &found,
        places,
        revision_only,
        force: care.force,
        only_tests: care.only_tests,
    };
    let plan = remove::plan(&request)?;
    if !care.force && !care.dry_run && is_guess(&spec, &found) {
        return confirm(&spec, &found, &plan, out);
    }
    let done = match (care.dry_run, revision_only) {
        (true, false) => Done { action: "delete_model", bytes: plan.bytes, plan: &plan },
        (true, true) => Done { action: "delete_hash", bytes: plan.bytes, plan: &plan },
        (false, _) => {
            Done { action: "deleted", bytes: remove::execute(&request, &plan)?, plan: &plan }
        }
    };
    let record = record.with("name", found.name.as_str());
    let record = match &found.revision {
        Some(revision) if revision_only => record.with("hash", revision.as_str()),
        _ => record,
    };
    let subject = match &found.revision {
        Some(revision) if revision_only => format!("{}@{revision:.7}", found.name),
        _ => found.name.clone(),
    };
    write(&done, record, &subject, out)
}

/// Refuses a record that describes a model without saying which revision: its listing could not tell,
/// and the whole model may be more than was listed. A plain name is the whole model.
fn check_revision(record: &Record, found: &Found) -> Result<()> {
    let is_name = record.fields().keys().all(|key| key == "name");
    let cached = matches!(found.origin, Origin::Cache { .. });
    if is_name || !cached || record.str("hash").is_some() {
        return Ok(());
    }
    Err(Error::validation("a record without a hash, which says no revision")
        .about(&found.name)
        .hint(format!("mlxk-rm {}, or one of the revisions of mlxk-ls --revisions -q", found.name)))
}

/// A removal, done or planned.
struct Done<'a> {
    action: &'static str,
    bytes: u64,
    plan: &'a Deletion,
}

impl Done<'_> {
    fn is_planned(&self) -> bool {
        !["deleted", "pruned"].contains(&self.action)
    }

    fn message(&self) -> String {
        let verb = if self.is_planned() { "would free" } else { "freed" };
        match self.bytes {
            0..1000 => format!("{verb} {}", human::count(self.bytes as usize, "byte")),
            bytes => format!("{verb} {} ({bytes} bytes)", human::size(bytes)),
        }
    }

    fn paths(&self) -> Vec<String> {
        self.plan.paths().map(|path| path.display().to_string()).collect()
    }
}

fn write(done: &Done, record: Record, subject: &str, out: &mut Output) -> Result<()> {
    match out.form {
        Form::Human => {
            let subject = printable(subject);
            let mut text = format!("rm: {subject} — {}: {}\n", done.action, done.message());
            if done.is_planned() {
                text.extend(done.paths().iter().map(|path| format!("  {}\n", printable(path))));
            }
            out.prose(&text)
        }
        Form::Ndjson => {
            let record = record.with("action", done.action).with("freed_bytes", done.bytes);
            out.lines([&record.with("paths", done.paths())])
        }
        Form::Json => out.envelope(data(done, &record)),
    }
}

/// The `data` of the envelope.
fn data(done: &Done, record: &Record) -> Value {
    let mut data = outline(record.get("name"), done.action, &done.message());
    data["lock_files_cleaned"] = json!(if done.is_planned() { 0 } else { done.plan.locks.len() });
    data["freed_bytes"] = json!(done.bytes);
    data["paths"] = json!(done.paths());
    if let Some(hash) = record.get("hash") {
        data["commit_hash"] = hash.clone();
    }
    data
}

fn outline(model: Option<&Value>, action: &str, message: &str) -> Value {
    json!({
        "model": model,
        "action": action,
        "message": message,
        "requires_confirmation": action == "requires_confirmation",
        "matches": [],
        "lock_files_cleaned": 0,
    })
}

/// True if the name given differs from the name of the model found.
fn is_guess(spec: &Spec, found: &Found) -> bool {
    match &spec.target {
        Target::Name { name, .. } => !spec.exact && *name != found.name,
        Target::Path(_) => false,
    }
}

/// Reports what `--force` would remove, and removes nothing: an error, or in the envelope a request
/// for confirmation.
fn confirm(spec: &Spec, found: &Found, plan: &Deletion, out: &mut Output) -> Result<()> {
    let message = format!("would remove {}, {}", found.name, human::size(plan.bytes));
    if out.form == Form::Json {
        let name = json!(found.name);
        return out.envelope(outline(Some(&name), "requires_confirmation", &message));
    }
    let error = Error::new(Kind::Validation, &spec.text, message);
    Err(error.hint("give the whole name, or --force; --dry-run lists what would be removed"))
}

/// Reports an error; the envelope also has `data`.
fn refuse(error: &Error, out: &mut Output) -> Result<()> {
    if out.form != Form::Json {
        return out.error(error);
    }
    let mut data = outline(None, "unknown", "");
    match error.kind {
        Kind::AmbiguousMatch => {
            data["action"] = json!("ambiguous");
            data["matches"] = json!(error.matches);
        }
        Kind::WorkspaceModel | Kind::DeletionFailed | Kind::PermissionDenied => {
            data["model"] = json!(error.subject);
        }
        Kind::LocksPresent => {
            data["model"] = json!(error.subject);
            data["locks_detected"] = json!(true);
            data["lock_files"] = json!(error.matches);
        }
        _ => {}
    }
    out.error_with(error, data)
}
