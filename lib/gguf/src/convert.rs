//! From a GGUF file to a managed workspace: nothing bears the target's name before it is whole.

use std::path::{Path, absolute};

use mlxk_core::Progress;
use mlxk_core::store::disk_space;
use mlxk_core::tensors::Entry;
use mlxk_core::workspace::sentinel::{self, Made};
use mlxk_core::workspace::staging::{self, Staging};
use mlxk_core::{Error, Float, Kind, Places, Record, Result, health, probe};
use serde_json::Value;

use crate::import::{Import, Source};
use crate::weights::Packed;

/// Says of a config.json and the tensors beside it whether they are a model.
pub type Examine<'e> = &'e dyn Fn(&Value, &[Entry]) -> Result<()>;

/// What becomes of a file.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// As in [`Source::plan`].
    pub dtype: Option<Float>,
    /// As in [`Source::plan`].
    pub packed: Packed,
    /// Whether what comes of it must be healthy.
    pub check: bool,
}

/// Imports the file `source` as the workspace `target` and describes it in a record.
///
/// `target` is as in [`Staging::new`]. `examine` is asked before anything is written.
///
/// # Errors
/// As those of [`Source::plan`] and [`Import::write`]; if the source lies in the cache, or the disk
/// has no room. Then nothing is left behind.
pub fn convert(
    source: &Path,
    target: &Path,
    way: Way,
    places: &Places,
    examine: Examine,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let file = open(source, places)?;
    let staging = Staging::new(target, places)?;
    let import = file.plan(way.dtype, way.packed)?;
    let source = write(&import, source, staging.path(), examine, progress)?;
    let size = checked(&staging, way.check)?;
    let target = staging.publish()?.to_string_lossy().into_owned();
    let hash = source.sentinel.0.get("content_hash").cloned();
    let record = Record::default()
        .with("name", &*target)
        .with("source", source.path)
        .with("target", &*target)
        .with("mode", "gguf")
        .with("tensors", import.tensors().len())
        .with("size_bytes", size)
        .with("content_hash", hash)
        .with("health_check", way.check);
    Ok(if way.check { record.with("health_status", "healthy") } else { record })
}

/// Imports the file `source` into the directory `dir` with nothing packed, for a conversion that
/// packs it anew; the rest is as in [`convert`]. Returns the file's full name.
///
/// # Errors
/// As those of [`convert`].
pub fn unpack(
    source: &Path,
    dir: &Path,
    dtype: Option<Float>,
    places: &Places,
    examine: Examine,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<String> {
    let file = open(source, places)?;
    let import = file.plan(dtype, Packed::Opened)?;
    write(&import, source, dir, examine, progress).map(|written| written.path)
}

fn open(source: &Path, places: &Places) -> Result<Source> {
    let found = source.canonicalize().map_err(|e| Error::io(source, e))?;
    staging::check_source(&found, places)?;
    Source::open(source)
}

/// What was written, and out of what.
struct Written {
    path: String,
    sentinel: sentinel::Sentinel,
}

fn write(
    import: &Import,
    source: &Path,
    dir: &Path,
    examine: Examine,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Written> {
    examine(import.config(), import.tensors()).map_err(|mut e| {
        e.message = format!("{}: {}", e.subject, e.message);
        e.about(source.display().to_string())
    })?;
    disk_space::check(dir, import.bytes())?;
    import.write(dir, progress)?;
    let path = absolute(source).map_err(|e| Error::io(source, e))?;
    let path = path.to_string_lossy().into_owned();
    let made = Made { operation: "convert", source: &path, revision: None, mode: Some("gguf") };
    let sentinel = sentinel::manage(dir, &made)?;
    Ok(Written { path, sentinel })
}

/// The size of a workspace that is whole, if that has to be `must`.
fn checked(staging: &Staging, must: bool) -> Result<u64> {
    let target = staging.target().display().to_string();
    let unhealthy = |reason: &str| Error::new(Kind::Unhealthy, &*target, reason);
    let workspace = mlxk_core::workspace::at(staging.path())?;
    let workspace = workspace.ok_or_else(|| unhealthy("has no config.json"))?;
    let facts = probe::read(&workspace.into())?;
    let health = health::check(&facts);
    match health.healthy || !must {
        true => Ok(facts.size()),
        false => Err(unhealthy(&health.reason).hint("--skip-health makes it all the same")),
    }
}
