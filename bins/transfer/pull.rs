//! Pulls of models into the cache, and their records and text output.

use std::cell::RefCell;

use mlxk_cli::{FileFlags, Form, HubName, Input, Output, Reporter, each, human, interrupt};
use mlxk_core::{Error, Kind, Places, Progress, Record, Remote, Result};
use mlxk_hub::Hub;
use mlxk_hub::pull::{Fetched, PullOptions, PullPlan};
use serde_json::{Value, json};

use crate::files::{filter, lines, listed, named};

/// Options of a pull.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files to download, and their revision if the name of the model has none.
    pub files: FileFlags,
    /// True if the download is only planned and reported.
    pub dry_run: bool,
    /// True if only the files that records list as bad are downloaded, again.
    pub repair: bool,
    /// True if progress records are written.
    pub events: bool,
}

/// Pulls the models that `input` names into the cache.
///
/// # Errors
/// If `remote` cannot be used, or the output not be written; a pull that fails is reported there.
pub fn pull(
    input: Input,
    options: &Options,
    remote: Remote,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    let hub = Hub::new(remote, interrupt::caught)?;
    let current = RefCell::new(None);
    let work = |record: Record, out: &mut Output| {
        current.replace(record.str("name").map(str::to_owned));
        pull_one(record, options, &hub, places, out)
    };
    each(input, out, work, |e, out| refuse(e, current.borrow().as_deref(), out))
}

fn pull_one(
    record: Record,
    options: &Options,
    hub: &Hub,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    if record.get("cached") == Some(&Value::Bool(false)) {
        let name = record.str("name").unwrap_or_default();
        out.remark(
            &format!("{name}: a workspace, not changed"),
            "mlxk-clone can create it in another directory",
        );
        return Ok(());
    }
    let wanted = HubName::of(&record, options.files.branch.as_deref(), places)?;
    let bad = if options.repair { Some(bad_files(&record)?) } else { None };
    let revision = match &bad {
        Some(_) => record.str("hash").unwrap_or_else(|| wanted.revision()),
        None => wanted.revision(),
    };
    if bad.as_ref().is_some_and(Vec::is_empty) {
        return write(&Done::nothing(&wanted, revision), record, options, out);
    }
    let bad = bad.unwrap_or_default();
    let choice = filter(&options.files);
    let wish = PullOptions { id: &wanted.id, revision, filter: &choice, bad: &bad };
    let reporter = Reporter::new(&wanted.id, options.events, out).titled();
    let told = |progress: Progress| reporter.report(progress);
    let work = || {
        let plan = PullPlan::new(hub, wish, places, &told)?;
        if options.dry_run || plan.is_up_to_date() {
            return Ok(Done::planned(&plan, &wanted));
        }
        let fetched = plan.execute(hub, &told)?;
        Ok(Done::fetched(&plan, &fetched, &wanted))
    };
    let done = hub.interruptible(work);
    reporter.finish()?;
    write(&done?, record, options, out)
}

/// Files that `mlxk-health --verify` reported as bad.
fn bad_files(record: &Record) -> Result<Vec<String>> {
    let lacking = || {
        let name = record.str("name").unwrap_or_default();
        Error::new(Kind::Validation, name, "the record does not say which files are bad")
            .hint("mlxk-health --verify | mlxk-pull --repair")
    };
    let files = record.get("bad_files").and_then(Value::as_array).ok_or_else(lacking)?;
    let path = |file: &Value| Some(file.get("path")?.as_str()?.to_owned());
    files.iter().map(path).collect::<Option<_>>().ok_or_else(lacking)
}

/// Outcome of a pull.
struct Done<'a> {
    wanted: &'a HubName,
    status: &'static str,
    commit: String,
    files: Vec<(String, u64)>,
    bytes: u64,
}

impl<'a> Done<'a> {
    /// Outcome of a dry run, or of a pull with nothing to download.
    fn planned(plan: &PullPlan, wanted: &'a HubName) -> Done<'a> {
        let status = if plan.is_up_to_date() { "already_exists" } else { "planned" };
        let commit = plan.listing.commit.clone();
        Done { wanted, status, commit, files: named(plan.missing()), bytes: plan.bytes() }
    }

    fn fetched(plan: &PullPlan, fetched: &Fetched, wanted: &'a HubName) -> Done<'a> {
        let commit = plan.listing.commit.clone();
        let files = named(fetched.files.iter().copied());
        Done { wanted, status: "success", commit, files, bytes: fetched.bytes }
    }

    fn nothing(wanted: &'a HubName, commit: &str) -> Done<'a> {
        let commit = commit.to_owned();
        Done { wanted, status: "already_exists", commit, files: Vec::new(), bytes: 0 }
    }

    fn message(&self) -> String {
        let amount = human::files(self.files.len(), self.bytes);
        let at = format!("revision {:.7}", self.commit);
        match self.status {
            "already_exists" => format!("up to date, {at}"),
            "planned" => format!("would fetch {amount}, {at}"),
            _ => format!("fetched {amount}, {at}"),
        }
    }
}

fn write(done: &Done, record: Record, options: &Options, out: &mut Output) -> Result<()> {
    let message = done.message();
    match out.form {
        Form::Human => {
            let mut text = format!("pull: {} — {message}\n", done.wanted.id);
            if options.dry_run {
                text += &lines(&done.files);
            }
            out.prose(&text)
        }
        Form::Ndjson => {
            let record = record.with("name", &*done.wanted.id).with("hash", &*done.commit);
            let record = record.with("download_status", done.status);
            let record = record.with("fetched_bytes", if options.dry_run { 0 } else { done.bytes });
            let record = match options.dry_run {
                true => record
                    .with("planned_bytes", done.bytes)
                    .with("planned_files", listed(&done.files)),
                false => record,
            };
            let record = if options.events { record.with("type", "end") } else { record };
            out.lines([&record])
        }
        Form::Json => {
            let expanded = done.wanted.expanded.then_some(&done.wanted.id);
            out.envelope(json!({
                "model": done.wanted.id,
                "download_status": done.status,
                "message": message,
                "expanded_name": expanded,
                "commit_hash": done.commit,
                "files": listed(&done.files),
                "bytes": done.bytes,
            }))
        }
    }
}

/// Reports an error of the pull of `model`; the envelope also has `data`.
fn refuse(error: &Error, model: Option<&str>, out: &mut Output) -> Result<()> {
    let status = match error.kind {
        Kind::AccessDenied | Kind::RepoNotFound => "access_denied",
        _ => "failed",
    };
    match out.form {
        Form::Json => out.error_with(
            error,
            json!({
                "model": model,
                "download_status": status,
                "message": error.message,
                "expanded_name": null,
            }),
        ),
        Form::Human | Form::Ndjson => out.error(error),
    }
}
