//! `model.safetensors.index.json`: the file of each tensor of a sharded model.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};

use super::Header;
use crate::json::Document;

/// The name of the index file.
pub const INDEX: &str = "model.safetensors.index.json";

/// An index whose files all lie inside the model.
#[derive(Debug)]
pub struct Index {
    /// The file of each tensor, relative to the model.
    pub weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads the weight map of the document.
    ///
    /// # Errors
    /// If the map is missing, empty, or names a file outside the model; the message is the reason of a
    /// health report.
    pub fn new(document: &Document) -> Result<Index, String> {
        let fields =
            document.checked().map_err(|reason| format!("Invalid index file: {reason}"))?;
        let weight_map: BTreeMap<String, String> = fields
            .and_then(|fields| fields.text("weight_map"))
            .and_then(|map| serde_json::from_str(map).ok())
            .filter(|map: &BTreeMap<_, _>| !map.is_empty())
            .ok_or("Empty or invalid weight_map in index")?;
        match weight_map.iter().find(|(_, file)| !is_inside(file)) {
            Some((tensor, file)) => {
                Err(format!("Index points outside the model: {tensor} is in {file:?}"))
            }
            None => Ok(Index { weight_map }),
        }
    }

    /// The files of the index, sorted.
    pub fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Checks that the index and the headers of its files place the same tensors in the same files,
    /// and that no tensor is in two files.
    pub fn check(&self, files: &BTreeMap<&str, &Header>) -> Result<(), String> {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for (&file, header) in files {
            for tensor in &header.tensors {
                let name = tensor.name.as_str();
                if let Some(other) = seen.insert(name, file) {
                    return Err(format!("tensor {name:?} is in both {other} and {file}"));
                }
                match self.weight_map.get(name) {
                    None => return Err(format!("tensor {name:?} of {file} is not in the index")),
                    Some(other) if other != file => {
                        return Err(format!("tensor {name:?} is in {file}, not in {other}"));
                    }
                    Some(_) => {}
                }
            }
        }
        match self.weight_map.iter().find(|(name, _)| !seen.contains_key(name.as_str())) {
            Some((name, file)) => Err(format!("tensor {name:?} is not in {file}")),
            None => Ok(()),
        }
    }
}

/// True if the path is relative and stays inside the model on every system: no `..`, root, drive or
/// backslash.
fn is_inside(file: &str) -> bool {
    let plain = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    !file.is_empty() && plain && !file.contains(['\\', ':', '\0'])
}
