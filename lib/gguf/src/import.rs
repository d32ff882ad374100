//! A GGUF file as a directory that MLX loads: planned whole, so that nothing is written in vain.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};
use mlxk_core::Progress;
use mlxk_core::tensors;
use mlxk_core::workspace::stamp::Stamp;
use mlxk_core::{Error, Kind};
use serde_json::Value;

use crate::model::Model;
use crate::read::Gguf;
use crate::tokenizer;
use crate::weights::{Packed, Weights};
use mlxk_core::Float;

/// A GGUF file, mapped into memory.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    bytes: Mmap,
    stamp: Stamp,
}

impl Source {
    /// Opens a file. Errors if it is none, or does not begin like GGUF.
    pub fn open(path: &Path) -> mlxk_core::Result<Source> {
        let at = |e| Error::io(path, e);
        let stamp = Stamp::take(path)?;
        let file = File::open(path).map_err(at)?;
        if !file.metadata().map_err(at)?.is_file() {
            return Err(invalid(path, "not a file"));
        }
        // SAFETY: the map is only read; should another process shorten the file meanwhile, the
        // system ends this one.
        let bytes = unsafe { Mmap::map(&file) }.map_err(at)?;
        Ok(Source { path: path.to_owned(), bytes, stamp })
    }

    /// Reads the file and decides everything about its import; `dtype` is the type of weights that
    /// must be unpacked, and of vectors: without a wish the one that goes with the rest. `packed` says
    /// whether those that need not be unpacked are.
    ///
    /// # Errors
    /// If the file is damaged, or holds anything that cannot be imported; with its name.
    pub fn plan(&self, dtype: Option<Float>, packed: Packed) -> mlxk_core::Result<Import<'_>> {
        let at = |what: String| invalid(&self.path, what);
        let gguf = Gguf::parse(&self.bytes).map_err(at)?;
        self.whole(&gguf)?;
        let model = Model::read(&gguf).map_err(at)?;
        let weights = Weights::plan(&gguf, &model, dtype, packed).map_err(at)?;
        let mut files = tokenizer::files(&gguf, &model).map_err(at)?;
        let ids = tokenizer::ids(&gguf).map_err(at)?;
        let config = config(&model, &weights, &ids).map_err(at)?;
        files.push(("generation_config.json", ids));
        Ok(Import { source: self, weights, config, files })
    }

    /// Lets what was read leave memory; it is read again should it be asked for again.
    fn forget(&self) {
        // SAFETY: nobody writes to the map, so that what is forgotten is what the file holds. That
        // it may fail to leave memory does no harm.
        let _ = unsafe { self.bytes.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// Errors if the model is in several files, of which this is one.
    fn whole(&self, gguf: &Gguf) -> mlxk_core::Result<()> {
        let count: usize =
            gguf.find("split.count").map_err(|what| invalid(&self.path, what))?.unwrap_or(1);
        if count <= 1 {
            return Ok(());
        }
        let what = format!("one of the {count} files of a model");
        Err(invalid(&self.path, what)
            .hint("join them first: llama-gguf-split --merge FIRST_FILE NEW_FILE"))
    }
}

/// An import that only needs to be carried out.
#[derive(Debug)]
pub struct Import<'a> {
    source: &'a Source,
    weights: Weights<'a>,
    config: Value,
    files: Vec<(&'static str, Value)>,
}

impl Import<'_> {
    /// The tensors that are written.
    pub fn tensors(&self) -> &[tensors::Entry] {
        &self.weights.entries
    }

    /// The `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.weights.entries.iter().filter_map(tensors::Entry::bytes).sum()
    }

    /// Writes the model into the directory `dir`, with a part of a tensor in memory at a time.
    ///
    /// # Errors
    /// If the disk fails, a weight does not fit its type, the file has changed since it was opened, or
    /// `progress` wants to stop.
    pub fn write(
        &self,
        dir: &Path,
        mut progress: impl FnMut(Progress) -> mlxk_core::Result<()>,
    ) -> mlxk_core::Result<()> {
        let source = self.source;
        let bytes = |entry: &tensors::Entry| entry.bytes().unwrap_or_default();
        progress(Progress::Due(self.bytes()))?;
        tensors::stream(dir, &self.weights.entries, tensors::SHARD, |entry, out| {
            progress(Progress::Read(bytes(entry)))?;
            self.weights.parts(entry).try_for_each(|rows| {
                // Before it is read, which would kill the process if the file was cut short.
                source.stamp.check()?;
                source.forget();
                let part = self.weights.bytes(entry, rows);
                out(&part.map_err(|what| invalid(&source.path, what))?)
            })
        })?;
        source.stamp.check()?;
        let config = ("config.json", &self.config);
        for (name, content) in self.files.iter().map(|(name, file)| (*name, file)).chain([config]) {
            let path = dir.join(name);
            fs::write(&path, format!("{content:#}\n")).map_err(|e| Error::io(&path, e))?;
        }
        Ok(())
    }
}

fn config(model: &Model, weights: &Weights, ids: &Value) -> Result<Value, String> {
    let mut config = (model.architecture.config)(model)?;
    config["torch_dtype"] = weights.float.torch().into();
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(id) = ids.get(key) {
            config[key] = id.clone();
        }
    }
    if let Some(table) = weights.quantization() {
        config["quantization"] = table.clone();
        config["quantization_config"] = table;
    }
    Ok(config)
}

fn invalid(path: &Path, what: impl fmt::Display) -> Error {
    Error::new(Kind::InvalidModel, path.display().to_string(), what.to_string())
}
