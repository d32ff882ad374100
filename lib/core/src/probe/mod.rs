//! What lies in a model's directory: every small file and every safetensors header read once.
//!
//! Nothing is judged here. What is missing, broken or out of place is a fact like any other, so
//! that `health` can name it; only a directory that cannot be listed at all is an error.

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

/// All that is known of a model without loading it.
#[derive(Debug)]
pub struct Facts {
    /// Where it was found.
    pub found: Found,
    /// When its directory was last changed.
    pub modified: SystemTime,
    /// Its files, sorted; links are followed as far as they may lead.
    pub files: Vec<File>,
    /// What is no file of the model though it stands among them, sorted.
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
    /// `.mlxk_workspace.json`, of a workspace that this suite manages.
    pub sentinel: Document,
    /// What the README says of itself.
    pub readme: FrontMatter,
    /// `model.safetensors.index.json`, or why it is unusable.
    pub index: Option<std::result::Result<Index, String>>,
    /// The safetensors files, anywhere below the model, sorted.
    pub shards: Vec<Shard>,
    /// True if there is a chat template: a file of its own or a field of a tokenizer file.
    pub chat_template: bool,
    /// Blobs of the repository, relative to it, whose download began and did not end.
    pub unfinished: Vec<PathBuf>,
}

/// One safetensors file.
#[derive(Debug)]
pub struct Shard {
    /// Its path, relative to the model.
    pub path: PathBuf,
    /// Its header, or what is wrong with it.
    pub header: std::result::Result<Header, String>,
}

impl Facts {
    /// The file `name`, given relative to the model.
    pub fn file(&self, name: impl AsRef<Path>) -> Option<&File> {
        walk::find(&self.files, name.as_ref())
    }

    /// True if the model has the file `name`.
    pub fn has(&self, name: &str) -> bool {
        self.file(name).is_some()
    }

    /// Where `name` lies on disk.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.found.path.join(name)
    }

    /// The bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The safetensors files that make up the model, in order: those of the index; without one
    /// `model.safetensors`; without that `model*.safetensors`, then all beside `config.json`, then
    /// all there are.
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

/// Reads what lies in the directory of a model; a cached model without a snapshot has no files.
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
