//! `model.safetensors.index.json`: the file of each tensor of a sharded model.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path};
use std::{fmt, mem};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Header;
use crate::json::Document;

/// The name of the index file.
pub const INDEX: &str = "model.safetensors.index.json";

/// An index whose files all lie inside the model.
#[derive(Debug, Default)]
pub struct Index {
    /// The files, relative to the model, sorted.
    files: Vec<String>,
    /// The tensors, sorted by name, each with the place of its file in `files`.
    tensors: Vec<(Box<str>, usize)>,
}

impl Index {
    /// Reads the text of an index file.
    ///
    /// # Errors
    /// If it is no JSON object, or its weight map is missing, empty, or names a file outside the
    /// model; the message is the reason of a health report.
    pub fn parse(text: &[u8]) -> Result<Index, String> {
        #[derive(Deserialize)]
        struct Fields {
            weight_map: Index,
        }
        match str::from_utf8(text).map(serde_json::from_str) {
            Ok(Ok(Fields { weight_map })) => weight_map.checked(),
            // What is wrong, or only unusual, is found field by field.
            _ => Index::of(&Document::parse(text)),
        }
    }

    fn of(document: &Document) -> Result<Index, String> {
        let fields =
            document.checked().map_err(|reason| format!("Invalid index file: {reason}"))?;
        let map = fields.and_then(|fields| fields.text("weight_map"));
        let index: Option<Index> = map.and_then(|map| serde_json::from_str(map).ok());
        index.unwrap_or_default().checked()
    }

    /// The index, if it is not empty and its files are inside the model.
    fn checked(self) -> Result<Index, String> {
        if self.tensors.is_empty() {
            return Err("Empty or invalid weight_map in index".to_owned());
        }
        let inside: Vec<bool> = self.files().map(is_inside).collect();
        match self.tensors.iter().find(|(_, file)| !inside[*file]) {
            Some((tensor, file)) => {
                let file = &self.files[*file];
                Err(format!("Index points outside the model: {tensor} is in {file:?}"))
            }
            None => Ok(self),
        }
    }

    /// The tensors, sorted by name, each with its file.
    pub fn weight_map(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tensors.iter().map(|(name, file)| (&**name, &*self.files[*file]))
    }

    /// The files of the index, sorted.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// The index in its order. Of tensors of the same name, the last one counts.
    fn sorted(mut self) -> Index {
        self.tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.tensors.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = next.1;
            }
            same
        });
        let used: BTreeSet<usize> = self.tensors.iter().map(|(_, place)| *place).collect();
        let mut order: Vec<usize> = used.into_iter().collect();
        order.sort_by(|&a, &b| self.files[a].cmp(&self.files[b]));
        let mut places = vec![0; self.files.len()];
        order.iter().enumerate().for_each(|(place, &file)| places[file] = place);
        self.tensors.iter_mut().for_each(|(_, place)| *place = places[*place]);
        self.files = order.into_iter().map(|file| mem::take(&mut self.files[file])).collect();
        self
    }

    /// Checks that the index and the headers of its files place the same tensors in the same files,
    /// and that no tensor is in two files.
    pub fn check(&self, files: &BTreeMap<&str, &Header>) -> Result<(), String> {
        let mut found = vec![None; self.tensors.len()];
        for (&file, header) in files {
            for tensor in &header.tensors {
                let name = tensor.name.as_str();
                let Ok(place) = self.tensors.binary_search_by(|(own, _)| (**own).cmp(name)) else {
                    return Err(format!("tensor {name:?} of {file} is not in the index"));
                };
                if let Some(other) = found[place].replace(file) {
                    return Err(format!("tensor {name:?} is in both {other} and {file}"));
                }
                let other = &self.files[self.tensors[place].1];
                if other != file {
                    return Err(format!("tensor {name:?} is in {file}, not in {other}"));
                }
            }
        }
        match self.weight_map().zip(found).find(|(_, found)| found.is_none()) {
            Some(((name, file), _)) => Err(format!("tensor {name:?} is not in {file}")),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightMap;
        impl<'de> Visitor<'de> for WeightMap {
            type Value = Index;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the file of each tensor")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Index, A::Error> {
                let mut index = Index::default();
                let mut places: HashMap<String, usize> = HashMap::new();
                while let Some((Text(name), Text(file))) = map.next_entry()? {
                    // Runs of tensors are in the same file.
                    let last = index.tensors.last().map(|(_, place)| *place);
                    let place = last.filter(|&place| index.files[place] == file);
                    let place = place.unwrap_or_else(|| {
                        *places.entry(file.to_string()).or_insert_with(|| {
                            index.files.push(file.to_string());
                            index.files.len() - 1
                        })
                    });
                    index.tensors.push((name.into(), place));
                }
                Ok(index.sorted())
            }
        }
        deserializer.deserialize_map(WeightMap)
    }
}

/// A string of a JSON text, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// True if the path is relative and stays inside the model on every system: no `..`, root, drive or
/// backslash.
fn is_inside(file: &str) -> bool {
    let plain = Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    !file.is_empty() && plain && !file.contains(['\\', ':', '\0'])
}
