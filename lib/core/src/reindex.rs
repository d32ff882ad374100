//! A workspace as a copy of another one, with an index that is right.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::health::{self, Health};
use crate::probe;
use crate::record::Record;
use crate::store::sentinel::{self, Made, Sentinel};
use crate::store::staging::{self, Staging};
use crate::store::{Places, copy, workspace};
use crate::tensors::{self, INDEX};
use crate::verify::Progress;

/// Makes the workspace `target` out of `source`: the same files, and a new index of its weights.
///
/// A bare name is one of the workspace home. `check` says whether what was made must be healthy.
/// `progress` counts bytes, and can end it.
///
/// # Errors
/// If either lies in the cache, `source` is no workspace or cannot be copied, `target` is taken, a
/// weight file is broken, or the result is unhealthy. Then nothing is left behind.
pub fn repair_index(
    source: &Path,
    target: &Path,
    check: bool,
    places: &Places,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let source = origin(source, places)?;
    let staging = Staging::new(target, places)?;
    if staging.target().starts_with(&source) {
        let target = staging.target().display().to_string();
        return Err(Error::new(Kind::InvalidTarget, target, "lies inside the source"));
    }
    let mut sentinel = begin(&source, staging.path())?;
    copy_all(&source, staging.path(), progress)?;
    let shards = tensors::rebuild_index(staging.path())?;
    sentinel.seal(staging.path())?;
    let health = check.then(|| healthy(&staging)).transpose()?;
    let target = staging.publish()?.to_string_lossy().into_owned();
    let record = Record::default()
        .with("name", &*target)
        .with("source", source.to_string_lossy())
        .with("target", &*target)
        .with("mode", MODE)
        .with("shards", shards)
        .with("message", message(shards))
        .with("content_hash", sentinel.0.get("content_hash").cloned())
        .with("health_check", check);
    Ok(match health {
        None => record,
        Some(health) => {
            record.with("health_status", "healthy").with("health_reason", health.reason)
        }
    })
}

const MODE: &str = "repair-index";

/// The directory to copy: a workspace outside the cache, links resolved.
fn origin(source: &Path, places: &Places) -> Result<PathBuf> {
    let homed = staging::homed(source, places);
    let source = if homed.is_dir() { homed } else { source.to_owned() };
    let found = source.canonicalize().map_err(|e| Error::io(&source, e))?;
    if staging::in_cache(&found, places) {
        let what = "lies inside the Hugging Face cache";
        return Err(Error::new(Kind::InvalidTarget, found.display().to_string(), what)
            .hint("the cache is the downloads' own: `mlxk-clone` makes a workspace of it first"));
    }
    match workspace::at(&found)? {
        Some(_) => Ok(found),
        None => {
            let found = found.display().to_string();
            Err(Error::new(Kind::InvalidModel, found, "no workspace: no config.json there"))
        }
    }
}

/// Marks what is about to be made as managed; where it comes from is where its source came from.
fn begin(source: &Path, directory: &Path) -> Result<Sentinel> {
    let former = Sentinel::read(source)?.unwrap_or_default();
    let said = |key| former.0.get(key).and_then(|value| value.as_str());
    let path = source.to_string_lossy();
    let made = Made {
        operation: "convert",
        source: said("source_repo").unwrap_or(&path),
        revision: said("source_revision"),
        mode: Some(MODE),
    };
    sentinel::begin(directory, &made)
}

fn copy_all(
    source: &Path,
    directory: &Path,
    mut progress: impl FnMut(Progress) -> Result<()>,
) -> Result<()> {
    let items = copy::items(source, &belongs)?;
    progress(Progress::Due(items.iter().map(|item| item.size).sum()))?;
    items.iter().try_for_each(|item| {
        copy::item(source, directory, item, |bytes| progress(Progress::Read(bytes)))
    })
}

/// False for what a copy has of its own, and what is not the model's.
fn belongs(path: &Path) -> bool {
    let own = [sentinel::NAME, INDEX].map(Path::new).contains(&path);
    let others = [".hf_cache", ".git"].map(|name| Some(OsStr::new(name)));
    !own && !others.contains(&path.file_name())
}

fn healthy(staging: &Staging) -> Result<Health> {
    let unhealthy = |reason: &str| {
        Error::new(Kind::Unhealthy, staging.target().display().to_string(), reason)
            .hint("--skip-health makes it all the same")
    };
    let workspace = workspace::at(staging.path())?;
    let workspace = workspace.ok_or_else(|| unhealthy("config.json is a link to nothing"))?;
    let health = health::check(&probe::read(&workspace.into())?);
    match health.healthy {
        true => Ok(health),
        false => Err(unhealthy(&health.reason)),
    }
}

fn message(shards: usize) -> String {
    match shards {
        0 | 1 => "A model in one file needs no index".to_owned(),
        shards => format!("The index of {shards} files was made anew"),
    }
}
