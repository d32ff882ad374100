//! Creation of a workspace from another one; a failure leaves no files behind.

use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;

use super::sentinel::{self, Made, Sentinel};
use super::staging::{self, Staging};
use super::stamp::Stamp;
use crate::error::{Error, Kind, Result};
use crate::health::{self, Health};
use crate::probe;
use crate::progress::Progress;
use crate::record::Record;
use crate::store::copy::{self, Item};
use crate::store::{Found, Places, disk_space};

/// A source workspace, and the workspace that is created from it.
pub struct Remake {
    source: Found,
    staging: Staging,
    sentinel: Sentinel,
    mode: &'static str,
}

impl Remake {
    /// Begins the workspace `target` from `source`; `mode` is recorded as the way of conversion. A name
    /// without a separator is a workspace of the workspace home.
    ///
    /// # Errors
    /// If one of them is in the cache, directly or through a link, `source` is not a workspace, or
    /// `target` exists and is not an empty directory.
    pub fn begin(
        source: &Path,
        target: &Path,
        mode: &'static str,
        places: &Places,
    ) -> Result<Remake> {
        let source = origin(source, places)?;
        let staging = Staging::new(target, places)?;
        if staging.target().starts_with(&source.path) {
            let target = staging.target();
            return Err(Error::at(Kind::InvalidTarget, target, "lies inside the source"));
        }
        let sentinel = mark(&source.path, staging.path(), mode)?;
        Ok(Remake { source, staging, sentinel, mode })
    }

    /// The source workspace.
    pub fn source(&self) -> &Found {
        &self.source
    }

    /// The directory to fill.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// The files of the source model for whose path `wanted` is true.
    ///
    /// # Errors
    /// See [`copy::items`].
    pub fn items(&self, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<Item>> {
        copy::items(&self.source.path, &|path| belongs(path) && wanted(path))
    }

    /// Checks that the disk has room for copies of `items` and `more` bytes.
    ///
    /// # Errors
    /// `Execution` if it has not.
    pub fn check_room(&self, items: &[Item], more: u64) -> Result<()> {
        let largest = items.iter().filter(|item| item.link.is_none()).max_by_key(|item| item.size);
        let from = largest.map(|item| self.source.path.join(&item.path));
        let bytes = match from.is_some_and(|from| copy::is_free(&from, self.path())) {
            true => 0,
            false => items.iter().map(|item| item.size).sum(),
        };
        disk_space::check(self.path(), bytes + more)
    }

    /// Copies files of the source; an error of `progress` stops the copy.
    ///
    /// # Errors
    /// If a file cannot be copied, or changes before all are copied.
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

    /// Records a detail of the conversion in the sentinel.
    pub fn note(&mut self, key: &str, value: Value) {
        self.sentinel.set(key, value);
    }

    /// Publishes the workspace and returns its record. With `check` the workspace must be healthy.
    ///
    /// # Errors
    /// `Unhealthy` if it is not; then no file is left behind.
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

/// The source workspace, which must be outside the cache, links resolved.
fn origin(source: &Path, places: &Places) -> Result<Found> {
    let homed = staging::homed(source, places);
    let source = if homed.is_dir() { homed } else { source.to_owned() };
    let found = source.canonicalize().map_err(|e| Error::io(&source, e))?;
    staging::check_source(&found, places)?;
    match super::at(&found)? {
        Some(workspace) => Ok(workspace.into()),
        None => Err(Error::at(Kind::InvalidModel, &found, "no workspace: no config.json there")),
    }
}

/// Writes the sentinel of the new workspace; its origin is the origin of the source.
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

/// True if the path is a file of the model: not the sentinel, and not in `.git` or `.hf_cache`.
fn belongs(path: &Path) -> bool {
    let excluded = [".hf_cache", ".git"].map(|name| Some(OsStr::new(name)));
    path != Path::new(sentinel::NAME) && !excluded.contains(&path.file_name())
}

fn healthy(staging: &Staging) -> Result<Health> {
    let unhealthy = |reason: &str| {
        Error::at(Kind::Unhealthy, staging.target(), reason)
            .hint("--skip-health makes it all the same")
    };
    let workspace = super::at(staging.path())?;
    let workspace = workspace.ok_or_else(|| unhealthy("config.json is a link to nothing"))?;
    let health = health::check(&probe::read(&workspace.into())?);
    match health.healthy {
        true => Ok(health),
        false => Err(unhealthy(&health.reason)),
    }
}
