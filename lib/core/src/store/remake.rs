//! A workspace made out of another one: it gets its place when it is whole, and leaves nothing if not.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use super::copy::{self, Item};
use super::sentinel::{self, Made, Sentinel};
use super::staging::{self, Staging};
use super::stamp::Stamp;
use super::{Found, Places, room, workspace};
use crate::error::{Error, Kind, Result};
use crate::health::{self, Health};
use crate::probe;
use crate::record::Record;
use crate::progress::Progress;

/// A workspace that another one is made out of, and the one in the making.
pub struct Remake {
    source: Found,
    staging: Staging,
    sentinel: Sentinel,
    mode: &'static str,
}

impl Remake {
    /// Begins to make the workspace `target` out of `source` by way of `mode`; a bare name is one of
    /// the workspace home.
    ///
    /// # Errors
    /// If either lies in the cache, also by a link, `source` is no workspace, or `target` is taken.
    pub fn begin(
        source: &Path,
        target: &Path,
        mode: &'static str,
        places: &Places,
    ) -> Result<Remake> {
        let source = origin(source, places)?;
        let staging = Staging::new(target, places)?;
        if staging.target().starts_with(&source.path) {
            let target = staging.target().display().to_string();
            return Err(Error::new(Kind::InvalidTarget, target, "lies inside the source"));
        }
        let sentinel = mark(&source.path, staging.path(), mode)?;
        Ok(Remake { source, staging, sentinel, mode })
    }

    /// The workspace that it is made out of.
    pub fn source(&self) -> &Found {
        &self.source
    }

    /// The directory to fill.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// The files of the source that are the model's and `wanted`.
    ///
    /// # Errors
    /// If a link leads out of the source.
    pub fn items(&self, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<Item>> {
        copy::items(&self.source.path, &|path| belongs(path) && wanted(path))
    }

    /// Errors if the disk has no room for copies of `items` and `more` bytes.
    pub fn check_room(&self, items: &[Item], more: u64) -> Result<()> {
        let largest = items.iter().filter(|item| item.link.is_none()).max_by_key(|item| item.size);
        let from = largest.map(|item| self.source.path.join(&item.path));
        let bytes = match from.is_some_and(|from| copy::is_free(&from, self.path())) {
            true => 0,
            false => items.iter().map(|item| item.size).sum(),
        };
        room::check(self.path(), bytes + more)
    }

    /// Copies files of the source; `progress` counts bytes, and can end it.
    ///
    /// # Errors
    /// If a file cannot be copied, or changes before all are.
    pub fn copy(
        &self,
        items: &[Item],
        mut progress: impl FnMut(Progress) -> Result<()>,
    ) -> Result<()> {
        let files = items.iter().filter(|item| item.link.is_none());
        let stamps = files.map(|item| Stamp::take(self.source.path.join(&item.path)));
        let stamps = stamps.collect::<Result<Vec<_>>>()?;
        progress(Progress::Due(items.iter().map(|item| item.size).sum()))?;
        items.iter().try_for_each(|item| {
            copy::item(&self.source.path, self.path(), item, |bytes| {
                progress(Progress::Read(bytes))?;
                stamps.iter().try_for_each(Stamp::check)
            })
        })
    }

    /// Records in the sentinel what `mode` was about.
    pub fn note(&mut self, key: &str, value: Value) {
        self.sentinel.set(key, value);
    }

    /// Gives the workspace its place and describes it; `check` says whether it must be healthy.
    ///
    /// # Errors
    /// If it must and is not; then nothing is left of it.
    pub fn finish(mut self, check: bool) -> Result<Record> {
        self.sentinel.seal(self.staging.path())?;
        let health = check.then(|| healthy(&self.staging)).transpose()?;
        let target = self.staging.publish()?.to_string_lossy().into_owned();
        let record = Record::default()
            .with("name", &*target)
            .with("source", self.source.path.to_string_lossy())
            .with("target", &*target)
            .with("mode", self.mode)
            .with("content_hash", self.sentinel.0.get("content_hash").cloned())
            .with("health_check", check);
        Ok(match health {
            None => record,
            Some(health) => {
                record.with("health_status", "healthy").with("health_reason", health.reason)
            }
        })
    }
}

/// The workspace at a place outside the cache, links resolved.
fn origin(source: &Path, places: &Places) -> Result<Found> {
    let homed = staging::homed(source, places);
    let source = if homed.is_dir() { homed } else { source.to_owned() };
    let found = source.canonicalize().map_err(|e| Error::io(&source, e))?;
    staging::check_source(&found, places)?;
    match workspace::at(&found)? {
        Some(workspace) => Ok(workspace.into()),
        None => {
            let found = found.display().to_string();
            Err(Error::new(Kind::InvalidModel, found, "no workspace: no config.json there"))
        }
    }
}

/// Marks what is about to be made as managed; where it comes from is where its source came from.
fn mark(source: &Path, directory: &Path, mode: &str) -> Result<Sentinel> {
    let former = Sentinel::read(source)?.unwrap_or_default();
    let said = |key| former.0.get(key).and_then(|value| value.as_str());
    let path = source.to_string_lossy();
    let made = Made {
        operation: "convert",
        source: said("source_repo").unwrap_or(&path),
        revision: said("source_revision"),
        mode: Some(mode),
    };
    sentinel::begin(directory, &made)
}

/// False for what a copy has of its own, and what is not the model's.
fn belongs(path: &Path) -> bool {
    let others = [".hf_cache", ".git"].map(|name| Some(OsStr::new(name)));
    path != Path::new(sentinel::NAME) && !others.contains(&path.file_name())
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
