//! Conversion of a GGUF file to a managed workspace, which appears once it is complete.

use std::path::{Path, absolute};

use mlxk_core::Progress;
use mlxk_core::store::disk_space;
use mlxk_core::tensors::Entry;
use mlxk_core::workspace::sentinel::{self, Made};
use mlxk_core::workspace::staging::{self, Staging};
use mlxk_core::{Error, Float, Kind, Places, Record, Result, health, probe};
use serde_json::Value;

use crate::import::{Import, Source};
use crate::weights::Quantized;

/// Callback that checks a config.json and its tensors before they are written; an error refuses
/// them.
pub type Examine<'e> = &'e dyn Fn(&Value, &[Entry]) -> Result<()>;

/// Options of an import.
#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    /// Type of floats; the default follows the matrices of the file.
    pub dtype: Option<Float>,
    /// Treatment of quantized matrices.
    pub quantized: Quantized,
    /// True to fail if the workspace is not healthy.
    pub check: bool,
}

/// Imports the file `source` as the workspace `target` and describes it in a record.
///
/// `target` must not exist or be empty. `examine` runs before anything is written.
///
/// # Errors
/// Errors of [`Source::plan`] and [`Import::write`], of `examine`, and if the source lies in the
/// cache or the disk has not enough space. On any error nothing is left behind.
pub fn convert(
    source: &Path,
    target: &Path,
    options: ImportOptions,
    places: &Places,
    examine: Examine,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<Record> {
    let file = open(source, places)?;
    let staging = Staging::new(target, places)?;
    let import = file.plan(options.dtype, options.quantized)?;
    let source = write(&import, source, staging.path(), examine, progress)?;
    let size = checked_size(&staging, options.check)?;
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
        .with("health_check", options.check);
    Ok(if options.check { record.with("health_status", "healthy") } else { record })
}

/// Imports the file `source` into the directory `dir` with all matrices as floats, for a later
/// quantization. Returns the absolute path of the file.
///
/// # Errors
/// Errors of [`convert`].
pub fn convert_dequantized(
    source: &Path,
    dir: &Path,
    dtype: Option<Float>,
    places: &Places,
    examine: Examine,
    progress: impl FnMut(Progress) -> Result<()>,
) -> Result<String> {
    let file = open(source, places)?;
    let import = file.plan(dtype, Quantized::Dequantize)?;
    write(&import, source, dir, examine, progress).map(|written| written.path)
}

fn open(source: &Path, places: &Places) -> Result<Source> {
    let found = source.canonicalize().map_err(|e| Error::io(source, e))?;
    staging::check_source(&found, places)?;
    Source::open(source)
}

/// Source path and sentinel of what was written.
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

/// Size of the staged workspace in bytes; an error if `must_be_healthy` and it is not.
fn checked_size(staging: &Staging, must_be_healthy: bool) -> Result<u64> {
    let target = staging.target().display().to_string();
    let unhealthy = |reason: &str| Error::new(Kind::Unhealthy, &*target, reason);
    let workspace = mlxk_core::workspace::at(staging.path())?;
    let workspace = workspace.ok_or_else(|| unhealthy("has no config.json"))?;
    let facts = probe::read(&workspace.into())?;
    let health = health::check(&facts);
    match health.healthy || !must_be_healthy {
        true => Ok(facts.size()),
        false => Err(unhealthy(&health.reason).hint("--skip-health makes it all the same")),
    }
}
