//! The content of a model's directory: each small file and each safetensors header is read once.
//!
//! The probe does not judge. A file that is missing, broken or out of place is recorded as a fact for
//! `health`; only a directory that cannot be listed is an error.

mod bounds;
mod front_matter;
mod reader;
mod unfinished;
mod walk;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use front_matter::FrontMatter;
pub use walk::{File, Stray};

use crate::error::{Error, Result};
use crate::json::Document;
use crate::store::{Found, Origin};
use crate::tensors::{Header, Index};
use reader::Reader;

/// The facts about a model that are known without loading it.
#[derive(Debug)]
pub struct Facts {
    /// The model, as it was found.
    pub found: Found,
    /// The time when the model's directory last changed.
    pub modified: SystemTime,
    /// The model's files, sorted; links are followed inside the bounds of the model and its cache.
    pub files: Vec<File>,
    /// The entries of the directory that are not files of the model, sorted.
    pub strays: Vec<Stray>,
    /// `config.json`.
    pub config: Document,
    /// `generation_config.json`.
    pub generation_config: Document,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Document,
    /// `preprocessor_config.json`.
    pub preprocessor_config: Document,
    /// `processor_config.json`.
    pub processor_config: Document,
    /// `.mlxk_workspace.json` of a managed workspace.
    pub sentinel: Document,
    /// The front matter of the README.
    pub readme: FrontMatter,
    /// `model.safetensors.index.json`, or the reason why it is invalid; none if it does not exist.
    pub index: Option<std::result::Result<Index, String>>,
    /// The safetensors files in the directory and below, sorted.
    pub shards: Vec<Shard>,
    /// True if a chat template exists, as a file or as a field of a tokenizer file.
    pub chat_template: bool,
    /// Blobs whose download is incomplete, relative to the model's directory in the cache.
    pub unfinished: Vec<PathBuf>,
}

/// A safetensors file.
#[derive(Debug)]
pub struct Shard {
    /// The path of the file, relative to the model.
    pub path: PathBuf,
    /// The header of the file, or the reason why it is invalid.
    pub header: std::result::Result<Header, String>,
}

impl Facts {
    /// The file at the path `name`, relative to the model.
    pub fn file(&self, name: impl AsRef<Path>) -> Option<&File> {
        walk::find(&self.files, name.as_ref())
    }

    /// True if the model has the file `name`.
    pub fn has(&self, name: &str) -> bool {
        self.file(name).is_some()
    }

    /// `tokenizer.json`, which may lie in the folder of a module of sentence-transformers.
    pub fn tokenizer(&self) -> Option<&File> {
        const NAME: &str = "tokenizer.json";
        let below = || {
            let mut files = self.files.iter();
            files.find(|file| file.path.ends_with(NAME) && file.path.components().count() == 2)
        };
        self.file(NAME).or_else(below)
    }

    /// The path of `name` on disk.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.found.path.join(name)
    }

    /// The size of all files in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The safetensors files that hold the model's weights, sorted.
    ///
    /// The index names them. Without an index they are the first of these that is not empty:
    /// `model.safetensors`; `model*.safetensors`; all files beside `config.json`; all files.
    pub fn weights(&self) -> Vec<&Shard> {
        let pick = |wanted: &dyn Fn(&Shard) -> bool| -> Vec<&Shard> {
            self.shards.iter().filter(|shard| wanted(shard)).collect()
        };
        if let Some(Ok(index)) = &self.index {
            let files = index.files();
            return pick(&|shard| files.iter().any(|file| Path::new(file) == shard.path));
        }
        let name = |shard: &Shard| shard.path.to_string_lossy().into_owned();
        let tries = [
            pick(&|shard| name(shard) == "model.safetensors"),
            pick(&|shard| name(shard).starts_with("model") && !name(shard).contains('/')),
            pick(&|shard| !name(shard).contains('/')),
            pick(&|_| true),
        ];
        tries.into_iter().find(|shards| !shards.is_empty()).unwrap_or_default()
    }
}

/// Reads the directory of a model; a cached model without a snapshot has no files.
///
/// # Errors
/// If the directory cannot be listed.
pub fn read(found: &Found) -> Result<Facts> {
    let (path, (files, strays)) = match &found.origin {
        Origin::Cache { repo } if found.revision.is_none() => (repo, Default::default()),
        _ => (&found.path, walk::walk(found).map_err(|e| Error::io(&found.path, e))?),
    };
    let at = |e| Error::io(path, e);
    let modified = fs::metadata(path).and_then(|data| data.modified()).map_err(at)?;
    let reader = Reader::new(path, &files);
    let tokenizer_config = reader.document("tokenizer_config.json");
    Ok(Facts {
        modified,
        config: reader.document("config.json"),
        generation_config: reader.document("generation_config.json"),
        chat_template: reader.chat_template(&tokenizer_config),
        tokenizer_config,
        preprocessor_config: reader.document("preprocessor_config.json"),
        processor_config: reader.document("processor_config.json"),
        sentinel: match found.origin {
            Origin::Workspace => reader.document(".mlxk_workspace.json"),
            Origin::Cache { .. } => Document::Absent,
        },
        readme: reader.front_matter(),
        index: reader.index(),
        shards: reader.shards(),
        unfinished: unfinished::list(found).map_err(at)?,
        found: found.clone(),
        files,
        strays,
    })
}
