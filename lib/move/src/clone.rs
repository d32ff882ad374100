//! What `mlxk-clone` makes, and what it says of it.

use std::path::{Path, PathBuf};

use mlxk_cli::{Form, Input, Output, examine, interrupt};
use mlxk_core::workspace::staging::Staging;
use mlxk_core::{
    Error, Health, Kind, Places, Record, Remote, Result, Spec, Target, inspect, resolve,
};
use mlxk_hub::clone::Plan;
use mlxk_hub::event::Listener;
use mlxk_hub::{Hub, listing, patience};
use serde_json::{Value, json};

use crate::each::each;
use crate::flags::Part;
use crate::name::{Wanted, wanted};
use crate::pull::{lines, listed, named};
use crate::teller::{Teller, amount};

/// How to clone.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Which files, and of which revision if the name names none.
    pub part: Part,
    /// Where to; without it, under the name of the model in the home of the workspaces.
    pub target: Option<PathBuf>,
    /// Make nothing; say what would come.
    pub dry_run: bool,
    /// Say whether the clone is healthy.
    pub health: bool,
    /// Say no more than needed.
    pub quiet: bool,
    /// Write records while it goes on.
    pub events: bool,
}

/// Clones the models that `input` names.
pub fn clone(
    input: Input,
    manner: &Manner,
    remote: &Remote,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    each(input, out, |record, out| clone_one(record, manner, remote, places, out), refuse)
}

fn clone_one(
    record: Record,
    manner: &Manner,
    remote: &Remote,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    if record.get("cached") == Some(&Value::Bool(false)) {
        let name = record.str("name").unwrap_or_default();
        out.remark(&format!("{name}: a workspace already"), "it is left alone");
        return Ok(());
    }
    let typed = record.spec()?.text;
    let hub = match remote.offline {
        true => None,
        false => Some(Hub::new(remote.clone(), interrupt::caught)?),
    };
    let wanted = wanted(&record, manner.part.branch.as_deref(), places)?;
    let target = target(&wanted.id, manner, places)?;
    // What cannot be put there need not be asked for.
    Staging::check(&target, places)?;
    let teller = Teller::new(&wanted.id, manner.events, out);
    let told = |event: mlxk_hub::Event| teller.tell(event);
    let work = || {
        let plan = plan(&wanted, manner, hub.as_ref(), places, &told)?;
        if manner.dry_run {
            return Ok((plan, target.clone()));
        }
        let source = format!("{}@{}", plan.id, plan.listing.commit);
        let staging = Staging::persistent(&target, &source, places)?;
        let check = || match interrupt::caught() {
            true => Err(patience::interrupted()),
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
    teller.finish()?;
    let (plan, made) = done?;
    if manner.dry_run {
        return foretell(&plan, &made, record, manner, out);
    }
    let health = if manner.health { Some(health(&made, places)?) } else { None };
    write(&Done { plan, made, health }, record, manner, out)
}

/// What is to be cloned: as the Hub lists it, or without one as the cache has it.
fn plan(
    wanted: &Wanted,
    manner: &Manner,
    hub: Option<&Hub>,
    places: &Places,
    told: Listener,
) -> Result<Plan> {
    let choice = &manner.part.choice();
    let Some(hub) = hub else {
        let found = cached(&wanted.id, wanted.revision.as_deref(), places)?;
        return Plan::of_cached(&found, choice, &places.hub);
    };
    let info = listing::info(hub, &wanted.id, wanted.revision(), told)?;
    let listing = listing::files(hub, &wanted.id, &info.commit, told)?;
    let plan = Plan::of_listing(&wanted.id, listing, choice, &places.hub)?;
    plan.check_access(hub, info.gated, told)?;
    Ok(plan)
}

/// The revision of a cached model.
fn cached(id: &str, revision: Option<&str>, places: &Places) -> Result<mlxk_core::Found> {
    let name = match revision {
        Some(revision) => format!("{id}@{revision}"),
        None => id.to_owned(),
    };
    let target = Target::Name { name: id.to_owned(), revision: revision.map(str::to_owned) };
    let spec = Spec { text: name, target, exact: true };
    resolve::resolve(&spec, &Places { workspaces: None, ..places.clone() })
        .map_err(|e| e.hint("HF_HUB_OFFLINE is set: the Hub is not asked"))
}

/// Where the clone shall be.
fn target(id: &str, manner: &Manner, places: &Places) -> Result<PathBuf> {
    if let Some(target) = &manner.target {
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

/// Says what would be made, and what of it would come over the network.
fn foretell(
    plan: &Plan,
    target: &Path,
    record: Record,
    manner: &Manner,
    out: &mut Output,
) -> Result<()> {
    let target = target.display().to_string();
    let missing = named(plan.missing());
    let bytes = missing.iter().map(|(_, size)| size).sum::<u64>();
    let cached = plan.listing.files.len() - missing.len();
    let copied = match cached {
        0 => String::new(),
        count => format!(" and copy {}", amount(count, plan.bytes() - bytes)),
    };
    let commit = &*plan.listing.commit;
    let fetched = amount(missing.len(), bytes);
    let message = format!("would fetch {fetched}{copied}, revision {commit:.7}");
    match out.form {
        Form::Human => {
            let head = format!("clone: {} → {target} — {message}\n", plan.id);
            out.text(&(head + &lines(&missing)))
        }
        Form::Ndjson => {
            let record = record.with("name", &*plan.id).with("hash", commit);
            let record = record.with("clone_status", "planned").with("target_dir", target);
            let record = record.with("planned_bytes", bytes);
            let record = record.with("planned_files", listed(&missing));
            let record = if manner.events { record.with("type", "end") } else { record };
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

/// What was made.
struct Done {
    plan: Plan,
    made: PathBuf,
    health: Option<Health>,
}

impl Done {
    fn verdict(&self) -> Option<&'static str> {
        let health = self.health.as_ref()?;
        Some(if health.healthy { "healthy" } else { "unhealthy" })
    }

    fn message(&self) -> String {
        amount(self.plan.listing.files.len(), self.plan.bytes())
    }

    /// What is to be said of an unhealthy one.
    fn reason(&self) -> Option<&str> {
        self.health.as_ref().filter(|health| !health.healthy).map(|health| &*health.reason)
    }
}

fn write(done: &Done, record: Record, manner: &Manner, out: &mut Output) -> Result<()> {
    let made = done.made.display().to_string();
    match out.form {
        Form::Human => {
            let verdict = match (done.reason(), done.verdict()) {
                _ if manner.quiet => String::new(),
                (Some(reason), _) => format!(" (⚠ unhealthy: {reason})"),
                (None, Some(_)) => " (✓ healthy)".to_owned(),
                (None, None) => String::new(),
            };
            out.text(&format!("clone: {} → {made}{verdict}\n", done.plan.id))
        }
        Form::Ndjson => {
            let record = record.with("name", made).with("hash", Value::Null).with("cached", false);
            let record = record.with("origin", &*done.plan.id);
            let record = record.with("source_revision", &*done.plan.listing.commit);
            let record = match done.verdict() {
                Some(verdict) => record.with("health", verdict).with("reason", done.reason()),
                None => record,
            };
            let record = if manner.events { record.with("type", "end") } else { record };
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

/// Reports a failure; in the envelope with the data that go with it.
fn refuse(error: &Error, out: &mut Output) -> Result<()> {
    let status = match error.kind {
        Kind::AccessDenied | Kind::RepoNotFound | Kind::DownloadFailed => "pull_failed",
        Kind::PermissionDenied => "filesystem_error",
        _ => "error",
    };
    match out.form {
        Form::Json => out.error_with(
            error,
            json!({
                "model": Some(&error.subject).filter(|subject| !subject.is_empty()),
                "clone_status": status,
                "message": error.message,
                "target_dir": null,
                "health_check": false,
            }),
        ),
        Form::Human | Form::Ndjson => out.error(error),
    }
}
