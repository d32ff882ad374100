//! Push of a workspace to the Hub, and its record and text output.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlxk_cli::{Form, Output, Reporter, human, interrupt};
use mlxk_core::list::matching;
use mlxk_core::store::Revisions;
use mlxk_core::workspace::staging;
use mlxk_core::{Error, Kind, Places, Record, Remote, Result};
use mlxk_hub::Hub;
use mlxk_hub::push::{self, PushOptions, Pushed, Secret};
use serde_json::Value;

/// Minimum timeout for a response: the Hub sends no data while it creates a commit.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Most paths that an error names.
const NAMED: usize = 6;

/// Options of a push that do not concern the Hub.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// True if the workspace is only checked, without requests to the Hub.
    pub check_only: bool,
    /// True if files that look like secrets are sent.
    pub allow_secrets: bool,
    /// True if more than the result is reported.
    pub verbose: bool,
    /// True if progress records are written.
    pub events: bool,
}

/// Pushes the workspace that `dir` names.
///
/// # Errors
/// If the call is wrong, there is no such workspace, no token, or the push fails.
pub fn push(
    dir: &Path,
    wish: &PushOptions,
    options: Options,
    remote: Remote,
    places: &Places,
    out: &mut Output,
) -> Result<()> {
    if !options.check_only {
        push::check_options(wish).inspect_err(|_| out.misuse())?;
    }
    let dir = workspace(dir, places)?;
    if options.check_only {
        return check(&dir, wish, out);
    }
    if remote.token.is_none() {
        return Err(Error::new(Kind::Auth, &wish.repo, "a push needs a token, and there is none")
            .hint("set HF_TOKEN, or run `hf auth login`"));
    }
    let secrets = push::secrets(&dir)?;
    if !secrets.is_empty() && !options.allow_secrets {
        confirm(&secrets, wish, out)?;
    }
    let timeout = remote.timeout.max(TIMEOUT);
    let watch = interrupt::watch();
    let hub = Hub::new(Remote { timeout, ..remote }, interrupt::caught)?;
    let reporter = Reporter::new(&wish.repo, options.events, out).titled();
    let pushed = push::push(&hub, &dir, wish, &|progress| reporter.report(progress));
    reporter.finish()?;
    if watch.caught() {
        out.remark("interrupted", "uploaded files are not sent again");
        return Ok(()); // and dies of the signal
    }
    let pushed = pushed?;
    if let [first, ..] = &pushed.refused[..] {
        let count = human::count(pushed.refused.len(), "file");
        let message = format!("{}: refused by the Hub: {count}, {first} first", wish.repo);
        out.remark(&message, "the .gitignore of the repository lists them");
    }
    write(&pushed, options, out)
}

/// Asks whether files that look like secrets are sent; a dry run only names them.
///
/// # Errors
/// If the answer is no, or there is nobody to ask.
fn confirm(secrets: &[Secret], wish: &PushOptions, out: &Output) -> Result<()> {
    let message = "files that may hold secrets";
    let hint = "--allow-secrets sends them; .hfignore names files that are not sent";
    if wish.dry_run {
        out.remark(&format!("{message}: {}", named(secrets)), hint);
        return Ok(());
    }
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        let listed = secrets.iter().map(|secret| format!("  {}: {}\n", secret.path, secret.what));
        eprint!("{message}:\n{}Send them to {}? [y/N] ", listed.collect::<String>(), wish.repo);
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        read.map_err(|e| Error::io(Path::new("standard input"), e))?;
        if ["y", "yes"].contains(&&*answer.trim().to_lowercase()) {
            return Ok(());
        }
    }
    let message = format!("not pushed: {message}: {}", named(secrets));
    Err(Error::new(Kind::Validation, &wish.repo, message).hint(hint))
}

/// The first paths of `secrets` in one line.
fn named(secrets: &[Secret]) -> String {
    let mut paths: Vec<_> = secrets.iter().take(NAMED).map(|secret| &*secret.path).collect();
    if secrets.len() > NAMED {
        paths.push("…");
    }
    paths.join(", ")
}

/// Checks the workspace `dir`; the run fails if it is unhealthy.
fn check(dir: &Path, wish: &PushOptions, out: &mut Output) -> Result<()> {
    let health = push::check(dir)?;
    if health.get("healthy") != Some(&Value::Bool(true)) {
        out.deny();
    }
    let count = health.get("files_count").cloned();
    let message = verdict(&health);
    match out.form {
        Form::Human => {
            let anomalies = health.get("anomalies").and_then(Value::as_array).cloned();
            let anomalies: String = anomalies.iter().flatten().map(anomaly).collect();
            out.prose(&format!("push: {} — {message}\n{anomalies}", dir.display()))
        }
        form => {
            let record = Record::default()
                .with("name", dir.to_string_lossy())
                .with("hash", Value::Null)
                .with("repo_id", &*wish.repo)
                .with("branch", &*wish.branch)
                .with("local_files_count", count)
                .with("message", message)
                .with("dry_run", false)
                .with("workspace_health", Value::from(health));
            if form == Form::Json { out.envelope(record) } else { out.lines([&record]) }
        }
    }
}

/// Directory that `dir` names: an existing directory, a workspace in the workspace home, or else
/// the only workspace whose path begins with `dir`.
fn workspace(dir: &Path, places: &Places) -> Result<PathBuf> {
    let homed = staging::homed(dir, places);
    let found = match [dir, &homed].into_iter().find(|path| path.is_dir()) {
        Some(found) => found.to_owned(),
        None => beginning(dir, places)?,
    };
    let found = found.canonicalize().map_err(|e| Error::io(&found, e))?;
    staging::check_source(&found, places)?;
    Ok(found)
}

fn beginning(dir: &Path, places: &Places) -> Result<PathBuf> {
    let subject = dir.display().to_string();
    let refuse = |message: &str| Error::new(Kind::WorkspaceNotFound, &subject, message);
    if dir.exists() {
        return Err(refuse("not a directory"));
    }
    let missing = || refuse("no such directory").hint("`mlxk ls --all` shows the workspaces");
    let is_path = dir.is_absolute() || subject.starts_with('.') || subject.contains('/');
    if !is_path {
        return Err(missing());
    }
    let pattern = if dir.is_absolute() || subject.starts_with('.') {
        subject.clone()
    } else {
        format!("./{subject}")
    };
    let found = matching(places, &pattern, Revisions::Current)?.models;
    match found.as_slice() {
        [] => Err(missing()),
        [one] => Ok(one.found.path.clone()),
        several => {
            let names: Vec<_> = several.iter().map(|one| one.found.name.clone()).collect();
            let message = format!("ambiguous: matches {} workspaces", names.len());
            Err(Error::new(Kind::AmbiguousMatch, &subject, message)
                .hint(format!("be more specific: {}", names.join(", ")))
                .matches(names))
        }
    }
}

fn write(pushed: &Pushed, options: Options, out: &mut Output) -> Result<()> {
    match out.form {
        Form::Human => out.prose(&text(pushed, options.verbose)),
        Form::Ndjson if options.events => out.lines([&pushed.record().with("type", "end")]),
        Form::Ndjson => out.lines([&pushed.record()]),
        Form::Json => out.envelope(pushed.record()),
    }
}

fn text(pushed: &Pushed, verbose: bool) -> String {
    let Pushed { repo, branch, .. } = pushed;
    let mut text = format!("push: {repo}@{branch} — {}\n", pushed.message());
    if !verbose && !pushed.dry_run {
        return text;
    }
    if let Some(commit) = &pushed.commit {
        text += &format!("  {}\n", commit.url);
    }
    let lists = [("+", &pushed.added), ("~", &pushed.modified), ("-", &pushed.only_remote)];
    for (mark, paths) in lists {
        for path in paths {
            text += &format!("  {mark} {path}\n");
        }
    }
    text
}

fn verdict(health: &Record) -> String {
    let number = |key| health.get(key).and_then(Value::as_u64).unwrap_or_default();
    let healthy = health.get("healthy") == Some(&Value::Bool(true));
    let files = human::files(number("files_count") as usize, number("total_bytes"));
    let verdict = if healthy { "healthy" } else { "unhealthy" };
    format!("{verdict}, {files}")
}

fn anomaly(anomaly: &Value) -> String {
    let word = |key: &str| anomaly[key].as_str().unwrap_or_default().to_owned();
    let path = match anomaly["path"].as_str() {
        Some(path) => format!("{path}: "),
        None => String::new(),
    };
    format!("  {}: {path}{}\n", word("severity"), word("message"))
}
