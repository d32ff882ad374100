//! Tiny models on disk, as they are or changed.

#![allow(dead_code)] // each test crate uses some of it

mod drawn;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mlxk_core::tensors::{self, Dtype, Entry, Header};
use mlxk_core::{Facts, Found, Inspected, Origin, Result, inspect};
use mlxk_engine::Model;
use mlxk_processor::Sampling;
use serde_json::{Map, Value};
use tempfile::TempDir;

/// The most likely token, always.
pub const GREEDY: Sampling = Sampling::GREEDY;

/// The directory of a case whose answers the Python reference gave.
pub fn parity(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(case)
}

/// Loads the model in `path`, as a workspace.
pub fn load(path: &Path) -> Result<Model> {
    let Inspected { facts, plan, .. } = inspected(path)?;
    mlxk_engine::load(&facts, &plan)
}

/// Loads it in the form for a CPU or in that for a GPU.
pub fn load_for(path: &Path, on_cpu: bool) -> Result<Model> {
    let Inspected { facts, plan, .. } = inspected(path)?;
    mlxk_engine::load_for(&facts, &plan, on_cpu)
}

/// Loads the model in `path` with the adapter in `folder`.
pub fn load_adapted(path: &Path, folder: &Path) -> Result<Model> {
    let Inspected { facts, plan, .. } = inspected(path)?;
    mlxk_engine::load_adapted(&facts, &plan, folder)
}

/// Content of the model in `path`.
pub fn facts(path: &Path) -> Result<Facts> {
    inspected(path).map(|inspected| inspected.facts)
}

/// Model in `path`, read and judged.
pub fn inspected(path: &Path) -> Result<Inspected> {
    let found = Found {
        name: path.display().to_string(),
        path: path.to_owned(),
        revision: None,
        origin: Origin::Workspace,
    };
    inspect(&found)
}

/// A model that a test changes before it is written.
#[derive(Clone)]
pub struct Draft {
    pub config: Map<String, Value>,
    pub tensors: BTreeMap<String, Tensor>,
}

/// A tensor of a draft.
#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Draft {
    /// The model of a parity case.
    pub fn of(case: &str) -> Draft {
        Draft::at(&parity(case))
    }

    /// The model of the case in `path`, whose weights are stored or drawn.
    pub fn at(path: &Path) -> Draft {
        let config = fs::read(path.join("config.json")).unwrap();
        let tensors = match fs::read(path.join("model.safetensors")) {
            Ok(file) => stored(&file),
            Err(_) => drawn::all(&path.join("expected.json")),
        };
        Draft { config: serde_json::from_slice(&config).unwrap(), tensors }
    }

    /// The same model with a field of its config.json set.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Draft {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Loads it from a directory that lives as long as the model is mapped.
    pub fn load(&self) -> Result<(Model, TempDir)> {
        let dir = self.write();
        load(dir.path()).map(|model| (model, dir))
    }

    /// Writes it to a directory.
    pub fn write(&self) -> TempDir {
        let dir = TempDir::new().unwrap();
        self.write_in(dir.path());
        dir
    }

    /// Writes it to a directory that is there.
    pub fn write_in(&self, dir: &Path) {
        fs::write(dir.join("config.json"), serde_json::to_vec(&self.config).unwrap()).unwrap();
        fs::copy(parity("llama").join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
        let entry = |(name, t): (&String, &Tensor)| Entry {
            name: name.clone(),
            dtype: t.dtype,
            shape: t.shape.clone(),
        };
        let entries: Vec<Entry> = self.tensors.iter().map(entry).collect();
        let bytes = |entry: &Entry| Ok(self.tensors[&entry.name].bytes.as_slice().into());
        tensors::write(dir, &entries, tensors::SHARD, bytes).unwrap();
    }

    /// Loads it, and says why that cannot be.
    pub fn refused(&self) -> String {
        match self.load() {
            Ok(_) => panic!("the model was loaded"),
            Err(e) => e.to_string(),
        }
    }
}

fn stored(file: &[u8]) -> BTreeMap<String, Tensor> {
    let header = Header::read(&mut &file[..], file.len() as u64).unwrap();
    let tensor = |t: tensors::Tensor| {
        let bytes = file[t.range.start as usize..t.range.end as usize].to_vec();
        (t.name, Tensor { dtype: t.dtype, shape: t.shape, bytes })
    };
    header.tensors.into_iter().map(tensor).collect()
}

impl Tensor {
    /// Elements of type f32.
    pub fn of(shape: &[usize], elements: impl IntoIterator<Item = f32>) -> Tensor {
        let bytes: Vec<u8> = elements.into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(bytes.len(), 4 * shape.iter().product::<usize>());
        Tensor { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// The elements, of type f32.
    pub fn elements(&self) -> Vec<f32> {
        let element = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
        self.bytes.chunks_exact(4).map(element).collect()
    }
}

/// The largest difference of two lists of logits, relative to the largest logit.
pub fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = |list: &mut dyn Iterator<Item = f32>| list.fold(0.0, f32::max);
    largest(&mut a.iter().zip(b).map(|(a, b)| (a - b).abs()))
        / largest(&mut a.iter().map(|a| a.abs()))
}
