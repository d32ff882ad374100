//! The content of a model's directory: each small file and each safetensors header is read once.
//!
//! The probe does not judge. A file that is missing, broken or out of place is recorded as a fact for
//! `health`, and so is a directory that cannot be listed; only a model that does not exist is an error.

mod beside;
mod bounds;
mod front_matter;
mod reader;
pub mod sentence;
mod unfinished;
mod walk;
mod weights;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use beside::is_litter;
pub use front_matter::FrontMatter;
pub use walk::{File, Stray};

use crate::error::{Error, Result};
use crate::json::Document;
use crate::store::cache::Repo;
use crate::store::{Found, Origin};
use crate::tensors::{Header, Index};
use crate::workspace::sentinel;
use reader::Reader;
use sentence::{DenseConfig, Sentence};

/// The facts about a model that are known without loading it.
#[derive(Debug)]
pub struct Facts {
    /// The model, as it was found.
    pub found: Found,
    /// The time when the model's directory last changed.
    pub modified: SystemTime,
    /// The reason why the model's directory cannot be read, if so; then nothing else is known of it.
    pub unreadable: Option<String>,
    /// The model's files, sorted; links are followed inside the bounds of the model and its cache.
    pub files: Vec<File>,
    /// The files beside the model that are no part of it, sorted.
    pub beside: Vec<File>,
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
    /// The safetensors or npz files that hold the model's weights, sorted.
    pub shards: Vec<Shard>,
    /// Configuration of sentence-transformers, or the reason why it is invalid; the default if the model
    /// has none.
    pub sentence: std::result::Result<Sentence, String>,
    /// The safetensors files of the `Dense` modules of the model that exist.
    pub dense: Vec<Shard>,
    /// True if a chat template exists, as a file or as a field of a tokenizer file.
    pub chat_template: bool,
    /// Blobs whose download is incomplete, relative to the model's directory in the cache.
    pub unfinished: Vec<PathBuf>,
}

/// A safetensors or npz file.
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

    /// The size of all files in bytes, those beside the model included.
    pub fn size(&self) -> u64 {
        self.files.iter().chain(&self.beside).map(|file| file.size).sum()
    }

    /// The files that hold the model's weights, of which those that are pointers have no [`Shard`].
    pub fn weight_files(&self) -> Vec<&File> {
        weights::select(&self.files, self.index.as_ref().and_then(|index| index.as_ref().ok()))
    }

    /// The safetensors or npz files that hold the model's weights, sorted.
    pub fn weights(&self) -> Vec<&Shard> {
        self.shards.iter().collect()
    }
}

/// Reads the directory of a model; a cached model without a snapshot has no files.
///
/// # Errors
/// If the model does not exist, so that [`Error::is_absent`] is true.
pub fn read(found: &Found) -> Result<Facts> {
    match facts(found) {
        Err(e) if !e.is_absent() => {
            let unreadable = Some(e.to_string());
            Ok(Facts { unreadable, ..blank(found, SystemTime::UNIX_EPOCH) })
        }
        facts => facts,
    }
}

fn facts(found: &Found) -> Result<Facts> {
    let (path, (files, strays)) = match &found.origin {
        Origin::Cache { repo } if found.revision.is_none() => {
            // A model is also listed without a snapshot if its snapshots cannot be read.
            Repo { name: found.name.clone(), path: repo.clone() }.current()?;
            (repo, Default::default())
        }
        _ => (&found.path, walk::walk(found).map_err(|e| Error::io(&found.path, e))?),
    };
    let modified = fs::metadata(path).and_then(|data| data.modified());
    let modified = modified.map_err(|e| Error::io(path, e))?;
    let index = Reader::new(path, &files).index();
    let named = index.as_ref().and_then(|index| index.as_ref().ok());
    let named: BTreeSet<&Path> =
        named.iter().flat_map(|index| index.files()).map(Path::new).collect();
    let (beside, files) = files.into_iter().partition::<Vec<File>, _>(|file| {
        beside::is_beside(&file.path) && !named.contains(&*file.path)
    });
    let strays = strays.into_iter().filter(|stray| !beside::is_beside(&stray.path)).collect();
    let reader = Reader::new(path, &files);
    let tokenizer_config = reader.document("tokenizer_config.json");
    let weights = weights::select(&files, index.as_ref().and_then(|index| index.as_ref().ok()));
    let config = reader.document("config.json");
    let sentence = Sentence::read(&reader, &config);
    let dense = sentence.iter().flat_map(Sentence::dense).map(DenseConfig::weights);
    let dense: Vec<PathBuf> = dense.collect();
    let dense = dense.iter().filter_map(|path| walk::find(&files, path)).collect();
    Ok(Facts {
        config,
        sentence,
        dense: reader.shards(dense),
        generation_config: reader.document("generation_config.json"),
        chat_template: reader.chat_template(&tokenizer_config),
        tokenizer_config,
        preprocessor_config: reader.document("preprocessor_config.json"),
        processor_config: reader.document("processor_config.json"),
        sentinel: match found.origin {
            Origin::Workspace => reader.document(sentinel::NAME),
            Origin::Cache { .. } => Document::Absent,
        },
        readme: reader.front_matter(),
        shards: reader.shards(weights),
        index,
        unfinished: unfinished::list(found).unwrap_or_default(),
        files,
        beside,
        strays,
        ..blank(found, modified)
    })
}

/// The facts about a model of which nothing was read.
fn blank(found: &Found, modified: SystemTime) -> Facts {
    Facts {
        found: found.clone(),
        modified,
        unreadable: None,
        files: Vec::new(),
        beside: Vec::new(),
        strays: Vec::new(),
        config: Document::Absent,
        generation_config: Document::Absent,
        tokenizer_config: Document::Absent,
        preprocessor_config: Document::Absent,
        processor_config: Document::Absent,
        sentinel: Document::Absent,
        readme: FrontMatter::default(),
        index: None,
        shards: Vec::new(),
        sentence: Ok(Sentence::default()),
        dense: Vec::new(),
        chat_template: false,
        unfinished: Vec::new(),
    }
}
