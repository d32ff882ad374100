//! The sentinel `.mlxk_workspace.json`: the origin and the content hash of a managed workspace.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::content_hash::{self, EXCLUDED, Entry};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::regular_file::read_small;
use crate::store::atomic_write::atomic_write;

/// The name of the sentinel file.
pub const NAME: &str = ".mlxk_workspace.json";

/// The maximum size of a sentinel in bytes; its index has an entry for each file.
const MAX_SENTINEL: u64 = 64 << 20;

/// The field for the digests of whole files.
const DIGESTS: &str = "digests";

/// The origin of a workspace.
#[derive(Clone, Debug, Default)]
pub struct Made<'a> {
    /// The operation that made it: `clone` or `convert`.
    pub operation: &'a str,
    /// The source model or file.
    pub source: &'a str,
    /// The commit of the source.
    pub revision: Option<&'a str>,
    /// The mode of a `convert`: `repair-index`, `quantize`, `import`.
    pub mode: Option<&'a str>,
}

/// A sentinel with all its fields in order; unknown fields are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentinel(pub Map<String, Value>);

/// Makes the model directory `path` a managed workspace.
///
/// A model that cannot be hashed becomes a managed workspace without a content hash.
pub fn manage(path: &Path, made: &Made) -> Result<Sentinel> {
    let mut sentinel = begin(path, made)?;
    sentinel.seal(path)?;
    Ok(sentinel)
}

/// Makes the directory `path`, which does not hold a model yet, a managed workspace without a content
/// hash.
pub fn begin(path: &Path, made: &Made) -> Result<Sentinel> {
    let mut sentinel = Sentinel::default();
    sentinel.set("mlxk_version", env!("CARGO_PKG_VERSION"));
    sentinel.set("created_at", now());
    sentinel.set("source_repo", made.source);
    sentinel.set("source_revision", made.revision);
    sentinel.set("managed", true);
    sentinel.set("operation", made.operation);
    if let Some(mode) = made.mode {
        sentinel.set("mode", mode);
    }
    sentinel.write(path)?;
    Ok(sentinel)
}

impl Sentinel {
    /// Reads the sentinel of the workspace `path`; none if it does not exist.
    pub fn read(path: &Path) -> Result<Option<Sentinel>> {
        let path = path.join(NAME);
        let text = match read_small(&path, MAX_SENTINEL) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, e)),
        };
        match serde_json::from_slice(&text) {
            Ok(fields) => Ok(Some(Sentinel(fields))),
            Err(e) => Err(Error::at(Kind::InvalidModel, &path, format!("not a JSON object: {e}"))),
        }
    }

    /// Writes the sentinel into the workspace `path` atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        let place = path.join(NAME);
        atomic_write(&place, path, |file| {
            let written =
                serde_json::to_writer_pretty(&mut *file, &self.0).map_err(io::Error::from);
            written.and_then(|()| file.write_all(b"\n")).map_err(|e| Error::io(&place, e))
        })
    }

    /// Hashes the complete workspace `path` and writes the sentinel.
    ///
    /// A workspace that cannot be hashed gets no content hash, which is not an error.
    pub fn seal(&mut self, path: &Path) -> Result<()> {
        if let Ok(index) = content_hash::index(path, EXCLUDED) {
            self.set_hash(&index, EXCLUDED);
        }
        self.write(path)
    }

    /// True if the workspace is managed.
    pub fn is_managed(&self) -> bool {
        self.0.get("managed") == Some(&Value::Bool(true))
    }

    /// The patterns of files that the hash excludes; none if they are not a list of strings.
    pub fn exclude(&self) -> Option<Vec<String>> {
        let patterns = self.0.get("exclude_patterns")?.as_array()?;
        patterns.iter().map(|pattern| pattern.as_str().map(str::to_owned)).collect()
    }

    /// The file index of the last content hash; none if the hash is not of version 2, or a path could
    /// lead out of the workspace.
    pub fn index(&self) -> Option<Vec<Entry>> {
        if self.0.get("hash_algorithm")?.as_str()? != "v2" {
            return None;
        }
        let entries = self.0.get("file_index")?.as_array()?;
        let index = entries.iter().map(|entry| serde_json::from_value(entry.clone()));
        let index: Vec<Entry> = index.collect::<std::result::Result<_, _>>().ok()?;
        index.iter().all(|entry| is_safe(&entry.path)).then_some(index)
    }

    /// Records the file index `index` and its content hash.
    pub fn set_hash(&mut self, index: &[Entry], exclude: &[impl AsRef<str>]) {
        let exclude: Vec<&str> = exclude.iter().map(AsRef::as_ref).collect();
        self.set("hash_modified", now());
        self.set("hash_algorithm", "v2");
        self.set("content_hash", content_hash::aggregate(index));
        self.set("exclude_patterns", exclude);
        self.0.remove(DIGESTS); // they may be of former content
        self.set_index(index);
    }

    /// Records new modification times for the same content.
    pub fn set_index(&mut self, index: &[Entry]) {
        self.set("file_index", json!(index));
    }

    /// Records the digests of whole files by path, since the content hash covers only the header of
    /// weights. They are valid as long as the content hash is the same.
    pub fn set_digests(&mut self, digests: &BTreeMap<String, Digest>) {
        let digits = digests.iter().map(|(path, digest)| (path.clone(), digest.to_string().into()));
        let files: Map<String, Value> = digits.collect();
        let hash = self.0.get("content_hash").cloned();
        self.set(DIGESTS, json!({"content_hash": hash, "files": files}));
    }

    /// The valid digests of whole files by path.
    pub fn digests(&self) -> BTreeMap<&str, Digest> {
        let digests = self.0.get(DIGESTS).filter(|digests| {
            digests["content_hash"].is_string()
                && Some(&digests["content_hash"]) == self.0.get("content_hash")
        });
        let files = digests.and_then(|digests| digests["files"].as_object()).into_iter().flatten();
        files.filter_map(|(path, digits)| Some((&**path, digits.as_str()?.parse().ok()?))).collect()
    }

    /// Sets a field.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }
}

impl Default for Sentinel {
    fn default() -> Self {
        Sentinel(Map::new())
    }
}

/// True if the path stays inside the workspace on every system.
fn is_safe(path: &str) -> bool {
    let odd = path.is_empty() || path.starts_with('/') || path.contains(['\0', '\\']);
    !odd && path.chars().nth(1) != Some(':') && path.split('/').all(|part| part != "..")
}

/// The current time in UTC as `2026-01-02T03:04:05.678901Z`.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
