//! From a GGUF file to a managed workspace: nothing bears the target's name before it is whole.

use std::path::{Path, absolute};

use mlxk_core::store::sentinel::{self, Made};
use mlxk_core::store::staging::Staging;
use mlxk_core::store::workspace;
use mlxk_core::verify::Progress;
use mlxk_core::{Error, Kind, Places, Record, Result, health, probe};

use crate::import::Source;
use crate::weights::Packed;
use mlxk_core::Float;

/// Imports the file `source` as the workspace `target` and describes it in a record.
///
/// `dtype` is as in [`Source::plan`], `target` as in [`Staging::new`].
///
/// # Errors
/// As those two and [`crate::Import::write`]; then nothing is left behind.
pub fn convert(
    source: &Path,
    target: &Path,
    dtype: Option<Float>,
    places: &Places,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let file = Source::open(source)?;
    let staging = Staging::new(target, places)?;
    let import = file.plan(dtype, Packed::Kept)?;
    import.write(staging.path(), progress)?;
    let source = absolute(source).map_err(|e| Error::io(source, e))?;
    let source = source.to_string_lossy().into_owned();
    let made = Made { operation: "convert", source: &source, revision: None, mode: Some("gguf") };
    let sentinel = sentinel::manage(staging.path(), &made)?;
    let size = checked(&staging)?;
    let target = staging.publish()?.to_string_lossy().into_owned();
    let hash = sentinel.0.get("content_hash").cloned();
    Ok(Record::default()
        .with("name", &*target)
        .with("source", source)
        .with("target", &*target)
        .with("mode", "gguf")
        .with("tensors", import.tensors())
        .with("size_bytes", size)
        .with("content_hash", hash)
        .with("health_status", "healthy"))
}

/// The size of a workspace that is whole.
fn checked(staging: &Staging) -> Result<u64> {
    let target = staging.target().display().to_string();
    let unhealthy = |reason: &str| Error::new(Kind::Unhealthy, &*target, reason);
    let workspace = workspace::at(staging.path())?;
    let workspace = workspace.ok_or_else(|| unhealthy("has no config.json"))?;
    let facts = probe::read(&workspace.into())?;
    let health = health::check(&facts);
    match health.healthy {
        true => Ok(facts.size()),
        false => Err(unhealthy(&health.reason)),
    }
}
