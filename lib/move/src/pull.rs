//! What `mlxk-pull` fetches, and what it says of it.

use mlxk_cli::interrupt;
use mlxk_cli::{Form, Input, Output, human};
use mlxk_core::{Error, Kind, Places, Record, Remote, Result};
use mlxk_hub::pull::{Fetched, PullOptions, PullPlan};
use mlxk_hub::{Hub, RemoteFile};
use serde_json::{Value, json};

use crate::each::each;
use crate::flags::Part;
use crate::name::{Wanted, wanted};
use crate::teller::{Teller, amount};

/// How to pull.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Which files, and of which revision if the name names none.
    pub part: Part,
    /// Fetch nothing; say what would come.
    pub dry_run: bool,
    /// Fetch again what the records say is bad, and nothing else.
    pub repair: bool,
    /// Write records while it goes on.
    pub events: bool,
}

/// Pulls the models that `input` names into the cache.
pub fn pull(
    input: Input,
    manner: &Manner,
    remote: Remote,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    let hub = Hub::new(remote, interrupt::caught)?;
    each(input, out, |record, out| pull_one(record, manner, &hub, places, out), refuse)
}

fn pull_one(
    record: Record,
    manner: &Manner,
    hub: &Hub,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    if record.get("cached") == Some(&Value::Bool(false)) {
        let name = record.str("name").unwrap_or_default();
        out.remark(
            &format!("{name}: a workspace, left alone"),
            "mlxk-clone makes it anew elsewhere",
        );
        return Ok(());
    }
    let wanted = wanted(&record, manner.part.branch.as_deref(), places)?;
    let bad = if manner.repair { Some(bad_files(&record)?) } else { None };
    let revision = match &bad {
        Some(_) => record.str("hash").unwrap_or_else(|| wanted.revision()),
        None => wanted.revision(),
    };
    if bad.as_ref().is_some_and(Vec::is_empty) {
        return write(&Done::nothing(&wanted, revision), record, manner, out);
    }
    let bad = bad.unwrap_or_default();
    let choice = manner.part.choice();
    let options = PullOptions { id: &wanted.id, revision, filter: &choice, bad: &bad };
    let teller = Teller::new(&wanted.id, manner.events, out);
    let told = |event: mlxk_hub::Event| teller.tell(event);
    let work = || {
        let plan = PullPlan::new(hub, options, places, &told)?;
        if manner.dry_run || plan.is_up_to_date() {
            return Ok(Done::planned(&plan, &wanted));
        }
        let fetched = plan.execute(hub, &told)?;
        Ok(Done::fetched(&plan, &fetched, &wanted))
    };
    let done = hub.interruptible(work);
    teller.finish()?;
    write(&done?, record, manner, out)
}

/// The files that `mlxk-health --verify` found to be bad.
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

/// What was done, or would be.
struct Done<'a> {
    wanted: &'a Wanted,
    status: &'static str,
    commit: String,
    files: Vec<(String, u64)>,
    bytes: u64,
}

impl<'a> Done<'a> {
    /// The end of a dry run, or of one with nothing to do.
    fn planned(plan: &PullPlan, wanted: &'a Wanted) -> Done<'a> {
        let status = if plan.is_up_to_date() { "already_exists" } else { "planned" };
        let commit = plan.listing.commit.clone();
        Done { wanted, status, commit, files: named(plan.missing()), bytes: plan.bytes() }
    }

    fn fetched(plan: &PullPlan, fetched: &Fetched, wanted: &'a Wanted) -> Done<'a> {
        let commit = plan.listing.commit.clone();
        let files = named(fetched.files.iter().copied());
        Done { wanted, status: "success", commit, files, bytes: fetched.bytes }
    }

    fn nothing(wanted: &'a Wanted, commit: &str) -> Done<'a> {
        let commit = commit.to_owned();
        Done { wanted, status: "already_exists", commit, files: Vec::new(), bytes: 0 }
    }

    fn message(&self) -> String {
        let amount = amount(self.files.len(), self.bytes);
        let at = format!("revision {:.7}", self.commit);
        match self.status {
            "already_exists" => format!("up to date, {at}"),
            "planned" => format!("would fetch {amount}, {at}"),
            _ => format!("fetched {amount}, {at}"),
        }
    }
}

/// The paths of files and their sizes.
pub(crate) fn named<'f>(files: impl Iterator<Item = &'f RemoteFile>) -> Vec<(String, u64)> {
    files.map(|file| (file.path.clone(), file.size)).collect()
}

/// The same as they stand in a record.
pub(crate) fn listed(files: &[(String, u64)]) -> Vec<Value> {
    files.iter().map(|(path, size)| json!({"path": path, "size_bytes": size})).collect()
}

/// The same as people read them, each in a line of its own.
pub(crate) fn lines(files: &[(String, u64)]) -> String {
    files.iter().map(|(path, size)| format!("  {:>8}  {path}\n", human::size(*size))).collect()
}

fn write(done: &Done, record: Record, manner: &Manner, out: &mut Output) -> Result<()> {
    let message = done.message();
    match out.form {
        Form::Human => {
            let mut text = format!("pull: {} — {message}\n", done.wanted.id);
            if manner.dry_run {
                text += &lines(&done.files);
            }
            out.text(&text)
        }
        Form::Ndjson => {
            let record = record.with("name", &*done.wanted.id).with("hash", &*done.commit);
            let record = record.with("download_status", done.status);
            let record = record.with("fetched_bytes", if manner.dry_run { 0 } else { done.bytes });
            let record = match manner.dry_run {
                true => record
                    .with("planned_bytes", done.bytes)
                    .with("planned_files", listed(&done.files)),
                false => record,
            };
            let record = if manner.events { record.with("type", "end") } else { record };
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

/// Reports a failure; in the envelope with the data that go with it.
fn refuse(error: &Error, out: &mut Output) -> Result<()> {
    let status = match error.kind {
        Kind::AccessDenied | Kind::RepoNotFound => "access_denied",
        _ => "failed",
    };
    match out.form {
        Form::Json => out.error_with(
            error,
            json!({
                "model": Some(&error.subject).filter(|subject| !subject.is_empty()),
                "download_status": status,
                "message": error.message,
                "expanded_name": null,
            }),
        ),
        Form::Human | Form::Ndjson => out.error(error),
    }
}
