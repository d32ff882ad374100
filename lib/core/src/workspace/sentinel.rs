//! `.mlxk_workspace.json`: what a managed workspace came from, and what it held then.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::content_hash::{self, EXCLUDED, Entry};
use crate::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::store::atomic_write::atomic_write;

/// The name of the file.
pub const NAME: &str = ".mlxk_workspace.json";

/// The field with the digests of whole files.
const DIGESTS: &str = "digests";

/// How a workspace came about.
#[derive(Clone, Debug, Default)]
pub struct Made<'a> {
    /// `clone` or `convert`.
    pub operation: &'a str,
    /// The model or file that it was made from.
    pub source: &'a str,
    /// The commit of the source.
    pub revision: Option<&'a str>,
    /// What a `convert` did: `repair-index`, `quantize`, `import`.
    pub mode: Option<&'a str>,
}

/// A sentinel: every field of the file, in order, also those that nobody here knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentinel(pub Map<String, Value>);

/// Makes the directory `path`, which holds a model, a managed workspace.
///
/// A model that cannot be hashed is managed all the same, without a hash.
pub fn manage(path: &Path, made: &Made) -> Result<Sentinel> {
    let mut sentinel = begin(path, made)?;
    sentinel.seal(path)?;
    Ok(sentinel)
}

/// Makes the directory `path`, which shall hold a model, a managed workspace without a hash as yet.
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
    /// The sentinel of the workspace `path`; none if it has none.
    pub fn read(path: &Path) -> Result<Option<Sentinel>> {
        let path = path.join(NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, e)),
        };
        match serde_json::from_slice(&text) {
            Ok(fields) => Ok(Some(Sentinel(fields))),
            Err(e) => Err(Error::new(
                Kind::InvalidModel,
                path.display().to_string(),
                format!("not a JSON object: {e}"),
            )),
        }
    }

    /// Puts the sentinel into the workspace `path`, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let place = path.join(NAME);
        atomic_write(&place, path, |file| {
            let written =
                serde_json::to_writer_pretty(&mut *file, &self.0).map_err(io::Error::from);
            written.and_then(|()| file.write_all(b"\n")).map_err(|e| Error::io(&place, e))
        })
    }

    /// Hashes the workspace `path`, which is complete now, and puts the sentinel there once more.
    ///
    /// What cannot be hashed has no hash; that is no error.
    pub fn seal(&mut self, path: &Path) -> Result<()> {
        if let Ok(index) = content_hash::index(path, EXCLUDED) {
            self.set_hash(&index, EXCLUDED);
        }
        self.write(path)
    }

    /// True if this suite manages the workspace.
    pub fn is_managed(&self) -> bool {
        self.0.get("managed") == Some(&Value::Bool(true))
    }

    /// The patterns of what the hash leaves out; none if they are not a list of strings.
    pub fn exclude(&self) -> Option<Vec<String>> {
        let patterns = self.0.get("exclude_patterns")?.as_array()?;
        patterns.iter().map(|pattern| pattern.as_str().map(str::to_owned)).collect()
    }

    /// What the workspace held when it was last hashed; none if that was not by version 2 of the
    /// hash, or if a path in it could lead out of the workspace.
    pub fn index(&self) -> Option<Vec<Entry>> {
        if self.0.get("hash_algorithm")?.as_str()? != "v2" {
            return None;
        }
        let entries = self.0.get("file_index")?.as_array()?;
        let index = entries.iter().map(|entry| serde_json::from_value(entry.clone()));
        let index: Vec<Entry> = index.collect::<std::result::Result<_, _>>().ok()?;
        index.iter().all(|entry| is_safe(&entry.path)).then_some(index)
    }

    /// Records what the workspace holds now.
    pub fn set_hash(&mut self, index: &[Entry], exclude: &[impl AsRef<str>]) {
        let exclude: Vec<&str> = exclude.iter().map(AsRef::as_ref).collect();
        self.set("hash_modified", now());
        self.set("hash_algorithm", "v2");
        self.set("content_hash", content_hash::aggregate(index));
        self.set("exclude_patterns", exclude);
        self.0.remove(DIGESTS); // of what it held before, perhaps
        self.set_index(index);
    }

    /// Records when its files were written, their content being the same.
    pub fn set_index(&mut self, index: &[Entry]) {
        self.set("file_index", json!(index));
    }

    /// Records the digests of whole files, by path, which hold as long as the content hash does: that
    /// covers of weights only the header.
    pub fn set_digests(&mut self, digests: &BTreeMap<String, Digest>) {
        let digits = digests.iter().map(|(path, digest)| (path.clone(), digest.to_string().into()));
        let files: Map<String, Value> = digits.collect();
        let hash = self.0.get("content_hash").cloned();
        self.set(DIGESTS, json!({"content_hash": hash, "files": files}));
    }

    /// The digests of whole files, as far as they are known.
    pub fn digests(&self) -> BTreeMap<&str, Digest> {
        let digests = self.0.get(DIGESTS).filter(|digests| {
            digests["content_hash"].is_string()
                && Some(&digests["content_hash"]) == self.0.get("content_hash")
        });
        let files = digests.and_then(|digests| digests["files"].as_object()).into_iter().flatten();
        files.filter_map(|(path, digits)| Some((&**path, digits.as_str()?.parse().ok()?))).collect()
    }

    /// Records one thing more about how the workspace came about.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }
}

impl Default for Sentinel {
    fn default() -> Self {
        Sentinel(Map::new())
    }
}

/// A path that stays below the workspace on any system.
fn is_safe(path: &str) -> bool {
    let odd = path.is_empty() || path.starts_with('/') || path.contains(['\0', '\\']);
    !odd && path.chars().nth(1) != Some(':') && path.split('/').all(|part| part != "..")
}

/// `2026-01-02T03:04:05.678901Z`
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
