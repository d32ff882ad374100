//! Clones of models into workspaces, and their records and text output.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::slice;

use mlxk_cli::{
    FileFlags, Form, HubName, Input, Output, Reporter, each, examine, human, interrupt,
};
use mlxk_core::progress::Listener;
use mlxk_core::workspace::staging::Staging;
use mlxk_core::{
    Error, Health, Kind, Places, Progress, Record, Remote, Result, Spec, Target, inspect, resolve,
};
use mlxk_hub::clone::ClonePlan;
use mlxk_hub::{Hub, backoff, listing, safe_path};
use serde_json::{Value, json};

use crate::files::{filter, lines, listed, named};

/// Options of a clone.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files to clone, and their revision if the name of the model has none.
    pub files: FileFlags,
    /// Directory to create; by default one with the name of the model in the workspace home.
    pub target: Option<PathBuf>,
    /// True if the clone is only planned and reported.
    pub dry_run: bool,
    /// True if the health of the clone is reported.
    pub health: bool,
    /// True if text output omits the health of the clone.
    pub quiet: bool,
    /// True if progress records are written.
    pub events: bool,
}

/// Clones the model `name`, or those of the records on standard input.
///
/// # Errors
/// If the call is wrong, or the output cannot be written; a clone that fails is reported there.
pub fn clone(
    name: Option<&String>,
    options: &Options,
    remote: &Remote,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    let input = Input::required(name.map(slice::from_ref).unwrap_or_default())?;
    if let Some(name) = name.filter(|name| *name != "-") {
        check(name, options, places).inspect_err(|_| out.misuse())?;
    }
    let current = RefCell::new(None);
    let work = |record: Record, out: &mut Output| {
        current.replace(record.str("name").map(str::to_owned));
        clone_one(record, options, remote, places, out)
    };
    each(input, out, work, |e, out| refuse(e, current.borrow().as_deref(), out))
}

/// Checks that `name` can be that of a model on the Hub, and that there is a place for its clone.
///
/// # Errors
/// If it is a path or no name, or there are two revisions or no directory: the call is wrong.
fn check(name: &str, options: &Options, places: &Places) -> Result<()> {
    let record = Record::default().with("name", name);
    match HubName::of(&record, options.files.branch.as_deref(), places) {
        Ok(wanted) => {
            safe_path::check_id(&wanted.id)?;
            safe_path::check_revision(wanted.revision())?;
        }
        // What the cache has of that name is told when its turn comes.
        Err(e) if e.kind == Kind::AmbiguousMatch => {}
        Err(e) => return Err(e),
    }
    target(name, options, places).map(|_| ())
}

fn clone_one(
    record: Record,
    options: &Options,
    remote: &Remote,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    if record.get("cached") == Some(&Value::Bool(false)) {
        let name = record.str("name").unwrap_or_default();
        out.remark(&format!("{name}: a workspace already"), "it is not changed");
        return Ok(());
    }
    let typed = record.spec()?.text;
    let hub = match remote.offline {
        true => None,
        false => Some(Hub::new(remote.clone(), interrupt::caught)?),
    };
    let wanted = HubName::of(&record, options.files.branch.as_deref(), places)?;
    let target = target(&wanted.id, options, places)?;
    // The target is checked before any request is made.
    Staging::check(&target, places)?;
    let reporter = Reporter::new(&wanted.id, options.events, out).titled();
    let told = |progress: Progress| reporter.report(progress);
    let work = || {
        let plan = plan(&wanted, options, hub.as_ref(), places, &told)?;
        if options.dry_run {
            return Ok((plan, target.clone()));
        }
        let source = format!("{}@{}", plan.id, plan.listing.commit);
        let staging = Staging::persistent(&target, &source, places)?;
        let check = || match interrupt::caught() {
            true => Err(backoff::interrupted()),
            false => Ok(()),
        };
        plan.fill(&staging, hub.as_ref(), &check, &told)?;
        let made = plan.publish(staging, &typed)?;
        Ok((plan, made))
    };
    let done = match &hub {
        Some(hub) => hub.interruptible(work),
        None => work(),
    };
    reporter.finish()?;
    let (plan, made) = done?;
    if options.dry_run {
        return foretell(&plan, &made, record, options, out);
    }
    let health = if options.health { Some(health(&made, places)?) } else { None };
    write(&Done { plan, made, health }, record, options, out)
}

/// Plan of a clone: the files that the Hub lists, or the cached files if `hub` is absent.
fn plan(
    wanted: &HubName,
    options: &Options,
    hub: Option<&Hub>,
    places: &Places,
    told: Listener,
) -> Result<ClonePlan> {
    let choice = &filter(&options.files);
    let Some(hub) = hub else {
        let found = cached(&wanted.id, wanted.revision.as_deref(), places)?;
        return ClonePlan::of_cached(&found, choice, &places.hub);
    };
    let info = listing::info(hub, &wanted.id, wanted.revision(), told)?;
    let listing = listing::files(hub, &wanted.id, &info.commit, told)?;
    let plan = ClonePlan::of_listing(&wanted.id, listing, choice, &places.hub)?;
    plan.check_access(hub, info.gated, told)?;
    Ok(plan)
}

/// Cached model `id` at `revision`.
fn cached(id: &str, revision: Option<&str>, places: &Places) -> Result<mlxk_core::Found> {
    let name = match revision {
        Some(revision) => format!("{id}@{revision}"),
        None => id.to_owned(),
    };
    let target = Target::Name { name: id.to_owned(), revision: revision.map(str::to_owned) };
    let spec = Spec { text: name, target, exact: true };
    resolve::resolve(&spec, &Places { workspaces: None, ..places.clone() })
        .map_err(|e| e.hint("HF_HUB_OFFLINE is set: the Hub is not contacted"))
}

/// Directory of the clone.
fn target(id: &str, options: &Options, places: &Places) -> Result<PathBuf> {
    if let Some(target) = &options.target {
        return Ok(target.clone());
    }
    match &places.workspaces {
        Some(home) => Ok(home.join(id.rsplit('/').next().unwrap_or(id))),
        None => Err(Error::new(Kind::InvalidTarget, id, "no directory to clone into")
            .hint("name one, or set MLXK_WORKSPACE_HOME")),
    }
}

fn health(made: &Path, places: &Places) -> Result<Health> {
    let record = Record::default().with("name", made.to_string_lossy());
    Ok(inspect(&examine::find(&record, places)?)?.health)
}

/// Reports the workspace that would be made, and the files that would be downloaded.
fn foretell(
    plan: &ClonePlan,
    target: &Path,
    record: Record,
    options: &Options,
    out: &mut Output,
) -> Result<()> {
    let target = target.display().to_string();
    let missing = named(plan.missing());
    let bytes = missing.iter().map(|(_, size)| size).sum::<u64>();
    let cached = plan.listing.files.len() - missing.len();
    let copied = match cached {
        0 => String::new(),
        count => format!(" and copy {}", human::files(count, plan.bytes() - bytes)),
    };
    let commit = &*plan.listing.commit;
    let fetched = human::files(missing.len(), bytes);
    let message = format!("would fetch {fetched}{copied}, revision {commit:.7}");
    match out.form {
        Form::Human => {
            let head = format!("clone: {} → {target} — {message}\n", plan.id);
            out.prose(&(head + &lines(&missing)))
        }
        Form::Ndjson => {
            let record = record.with("name", &*plan.id).with("hash", commit);
            let record = record.with("clone_status", "planned").with("target_dir", target);
            let record = record.with("planned_bytes", bytes);
            let record = record.with("planned_files", listed(&missing));
            let record = if options.events { record.with("type", "end") } else { record };
            out.lines([&record])
        }
        Form::Json => out.envelope(json!({
            "model": plan.id,
            "clone_status": "planned",
            "message": message,
            "target_dir": target,
            "health_check": false,
            "commit_hash": commit,
            "files": listed(&missing),
            "bytes": bytes,
        })),
    }
}

/// Outcome of a clone.
struct Done {
    plan: ClonePlan,
    made: PathBuf,
    health: Option<Health>,
}

impl Done {
    fn verdict(&self) -> Option<&'static str> {
        let health = self.health.as_ref()?;
        Some(if health.healthy { "healthy" } else { "unhealthy" })
    }

    fn message(&self) -> String {
        human::files(self.plan.listing.files.len(), self.plan.bytes())
    }

    /// Reason why the clone is unhealthy, if it is.
    fn reason(&self) -> Option<&str> {
        self.health.as_ref().filter(|health| !health.healthy).map(|health| &*health.reason)
    }
}

fn write(done: &Done, record: Record, options: &Options, out: &mut Output) -> Result<()> {
    let made = done.made.display().to_string();
    match out.form {
        Form::Human => {
            let verdict = match (done.reason(), done.verdict()) {
                _ if options.quiet => String::new(),
                (Some(reason), _) => format!(" (⚠ unhealthy: {reason})"),
                (None, Some(_)) => " (✓ healthy)".to_owned(),
                (None, None) => String::new(),
            };
            out.prose(&format!("clone: {} → {made}{verdict}\n", done.plan.id))
        }
        Form::Ndjson => {
            let record = record.with("name", made).with("hash", Value::Null).with("cached", false);
            let record = record.with("origin", &*done.plan.id);
            let record = record.with("source_revision", &*done.plan.listing.commit);
            let record = match done.verdict() {
                Some(verdict) => record.with("health", verdict).with("reason", done.reason()),
                None => record,
            };
            let record = if options.events { record.with("type", "end") } else { record };
            out.lines([&record])
        }
        Form::Json => out.envelope(json!({
            "model": done.plan.id,
            "clone_status": "success",
            "message": done.message(),
            "target_dir": made,
            "health_check": done.health.is_some(),
            "health": done.verdict(),
            "health_reason": done.reason(),
            "commit_hash": done.plan.listing.commit,
        })),
    }
}

/// Reports an error of the clone of `model`; the envelope also has `data`.
fn refuse(error: &Error, model: Option<&str>, out: &mut Output) -> Result<()> {
    let status = match error.kind {
        Kind::AccessDenied | Kind::RepoNotFound | Kind::DownloadFailed => "pull_failed",
        Kind::PermissionDenied => "filesystem_error",
        _ => "error",
    };
    match out.form {
        Form::Json => out.error_with(
            error,
            json!({
                "model": model,
                "clone_status": status,
                "message": error.message,
                "target_dir": null,
                "health_check": false,
            }),
        ),
        Form::Human | Form::Ndjson => out.error(error),
    }
}
