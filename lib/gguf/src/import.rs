//! Import of a GGUF file into a directory: planned completely before anything is written.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, UncheckedAdvice};
use mlxk_core::Progress;
use mlxk_core::regular_file;
use mlxk_core::tensors;
use mlxk_core::workspace::stamp::Stamp;
use mlxk_core::{Error, Float, Kind};
use serde_json::Value;

use crate::architecture::{self, Architecture};
use crate::model::Model;
use crate::read::Gguf;
use crate::rope;
use crate::tokenizer;
use crate::weights::{Quantized, Weights};

/// GGUF file, mapped into memory.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    bytes: Mmap,
    stamp: Stamp,
}

impl Source {
    /// Opens and maps the file `path`; an error if it is not a regular file.
    pub fn open(path: &Path) -> mlxk_core::Result<Source> {
        let at = |e| Error::io(path, e);
        let stamp = Stamp::take(path)?;
        let file = regular_file::open(path).map_err(|e| match regular_file::is_unfit(&e) {
            true => invalid(path, "not a file"),
            false => at(e),
        })?;
        // SAFETY: the map is only read; if another process truncates the file, the kernel ends this
        // process with SIGBUS.
        let bytes = unsafe { Mmap::map(&file) }.map_err(at)?;
        Ok(Source { path: path.to_owned(), bytes, stamp })
    }

    /// Parses the file and plans its import. `dtype` is the type of vectors and of matrices that
    /// have to be dequantized; by default it follows the matrices of the file.
    ///
    /// # Errors
    /// `InvalidModel` with the path, if the file is damaged or holds anything that cannot be
    /// imported.
    pub fn plan(
        &self,
        dtype: Option<Float>,
        quantized: Quantized,
    ) -> mlxk_core::Result<Import<'_>> {
        let at = |what: String| invalid(&self.path, what);
        let gguf = Gguf::parse(&self.bytes).map_err(at)?;
        self.check_single_file(&gguf)?;
        let architecture = architecture::detect(&gguf).map_err(at)?;
        let mut model = Model::read(&gguf, architecture.traits()).map_err(at)?;
        model.rope = rope::read(&model).map_err(at)?;
        let weights = Weights::plan(&gguf, architecture, &model, dtype, quantized).map_err(at)?;
        let mut files = tokenizer::files(&gguf, &model).map_err(at)?;
        let ids = tokenizer::ids(&gguf).map_err(at)?;
        let config = config(architecture, &model, &weights, &ids).map_err(at)?;
        files.push(("generation_config.json", ids));
        Ok(Import { source: self, weights, config, files })
    }

    /// Releases the pages of the map that were read; they are read from disk again when needed.
    fn release(&self) {
        // SAFETY: the map is never written, so that released pages equal the file. A failure is
        // harmless.
        let _ = unsafe { self.bytes.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// Checks that the file is not one of several into which a model was split.
    fn check_single_file(&self, gguf: &Gguf) -> mlxk_core::Result<()> {
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

/// Planned import.
#[derive(Debug)]
pub struct Import<'a> {
    source: &'a Source,
    weights: Weights<'a>,
    config: Value,
    files: Vec<(&'static str, Value)>,
}

impl Import<'_> {
    /// Tensors that are written.
    pub fn tensors(&self) -> &[tensors::Entry] {
        &self.weights.entries
    }

    /// Content of config.json.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Size of all tensors in bytes.
    pub fn bytes(&self) -> u64 {
        self.weights.entries.iter().filter_map(tensors::Entry::bytes).sum()
    }

    /// Writes the model into the directory `dir`, with one chunk of a tensor in memory at a time.
    ///
    /// # Errors
    /// If a write fails, a weight does not fit its type, the file has changed since it was opened,
    /// or `progress` returns an error.
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
            self.weights.chunks(entry).try_for_each(|rows| {
                // Checked first, since a read from a truncated file would kill the process.
                source.stamp.check()?;
                source.release();
                let bytes = self.weights.bytes(entry, rows);
                out(&bytes.map_err(|what| invalid(&source.path, what))?)
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

/// The complete config.json: that of the architecture, with types, token ids and quantization.
fn config(
    architecture: &Architecture,
    model: &Model,
    weights: &Weights,
    ids: &Value,
) -> Result<Value, String> {
    let mut config = (architecture.config)(model)?;
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
