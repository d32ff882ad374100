//! Small models, written into a workspace or a cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use mlxk_core::{Found, Health, Inspected, Origin, Plan};
use serde_json::{Value, json};

use crate::env::{Env, Snapshot};

/// The files of a model.
#[derive(Clone)]
pub struct Model(pub BTreeMap<String, Vec<u8>>);

impl Model {
    /// A small llama that is complete and can run.
    pub fn new() -> Model {
        Model(BTreeMap::new())
            .json("config.json", json!({"model_type": "llama", "max_position_embeddings": 2048}))
            .json("tokenizer_config.json", json!({"chat_template": "{{ messages }}"}))
            .json("tokenizer.json", json!({"model": {"type": "BPE"}}))
            .file("model.safetensors", shard(&["a", "b"]))
    }

    /// A small llama in two shards with an index.
    pub fn sharded() -> Model {
        let (one, two) = (name(1, 2), name(2, 2));
        Model::new()
            .without("model.safetensors")
            .file(&one, shard(&["a"]))
            .file(&two, shard(&["b"]))
            .index(json!({"a": one, "b": two}))
    }

    pub fn file(mut self, name: &str, content: impl Into<Vec<u8>>) -> Model {
        self.0.insert(name.to_owned(), content.into());
        self
    }

    pub fn json(self, name: &str, content: Value) -> Model {
        self.file(name, content.to_string())
    }

    /// Sets fields of `config.json`.
    pub fn config(self, fields: Value) -> Model {
        let mut config: Value = serde_json::from_slice(&self.0["config.json"]).unwrap();
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.json("config.json", config)
    }

    pub fn index(self, weight_map: Value) -> Model {
        self.json("model.safetensors.index.json", json!({ "weight_map": weight_map }))
    }

    pub fn without(mut self, name: &str) -> Model {
        assert!(self.0.remove(name).is_some(), "{name}");
        self
    }

    /// Writes the files into the workspace `name`.
    pub fn at(&self, env: &Env, name: &str) -> Found {
        let path = env.home().join(name);
        for (name, content) in &self.0 {
            let file = path.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        workspace(path)
    }

    /// Writes the files into the cache, every second one into the shared store.
    pub fn cached(&self, env: &Env, name: &str) -> Snapshot {
        let snapshot = env.snapshot(name, 'a');
        self.0.iter().enumerate().fold(snapshot, |snapshot, (at, (name, content))| match at % 2 {
            0 => snapshot.file(name, content),
            _ => snapshot.shared(name, content),
        })
    }

    pub fn health(&self) -> Health {
        inspect(&self.at(&Env::new(), "model")).health
    }

    /// The plan for the model under the name `name`.
    pub fn plan_as(&self, name: &str) -> Plan {
        inspect(&self.at(&Env::new(), name)).plan
    }

    pub fn plan(&self) -> Plan {
        self.plan_as("model")
    }
}

pub fn workspace(path: PathBuf) -> Found {
    let name = path.display().to_string();
    Found { name, path, revision: None, origin: Origin::Workspace }
}

pub fn in_cache(name: &str, snapshot: &Snapshot) -> Found {
    Found {
        name: name.to_owned(),
        path: snapshot.path.clone(),
        revision: Some(snapshot.revision.clone()),
        origin: Origin::Cache { repo: snapshot.repo.clone() },
    }
}

pub fn inspect(found: &Found) -> Inspected {
    mlxk_core::inspect(found).unwrap()
}

pub fn name(number: usize, total: usize) -> String {
    format!("model-{number:05}-of-{total:05}.safetensors")
}

/// A safetensors file of tensors of one byte, of the type `U8`.
pub fn shard(tensors: &[&str]) -> Vec<u8> {
    shard_of("U8", tensors)
}

/// A safetensors file of tensors of one byte, of the type `dtype`.
pub fn shard_of(dtype: &str, tensors: &[&str]) -> Vec<u8> {
    let entry = |(at, name): (usize, &&str)| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1)
    };
    let entries: Vec<_> = tensors.iter().enumerate().map(entry).collect();
    let header = format!("{{{}}}", entries.join(","));
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![7; tensors.len()]].concat()
}

/// The pointer that Git LFS leaves in the place of a file.
pub const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:\
    0000000000000000000000000000000000000000000000000000000000000000\nsize 123456789\n";
