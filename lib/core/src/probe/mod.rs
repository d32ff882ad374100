//! What lies in a model's directory: every small file and every safetensors header read once.
//!
//! Nothing is judged here. What is missing, broken or out of place is a fact like any other, so
//! that `health` can name it; only a directory that cannot be listed at all is an error.

mod front_matter;
mod walk;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memchr::memmem;
use serde_json::Value;

pub use front_matter::FrontMatter;
pub use walk::{File, Stray};

use crate::error::{Error, Result};
use crate::json::Document;
use crate::store::{Found, Origin};
use crate::tensors::{Header, Index};

/// The largest configuration that is read, in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;

/// How much of a README is looked at for its front matter, in bytes.
const MAX_FRONT_MATTER: u64 = 64 << 10;

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
        let name = name.as_ref();
        self.files
            .binary_search_by(|file| file.path.as_path().cmp(name))
            .ok()
            .map(|at| &self.files[at])
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
    /// `model*.safetensors`; without those all beside `config.json`; without those all.
    pub fn weights(&self) -> Vec<&Shard> {
        let pick = |wanted: &dyn Fn(&Shard) -> bool| -> Vec<&Shard> {
            self.shards.iter().filter(|shard| wanted(shard)).collect()
        };
        if let Some(Ok(index)) = &self.index {
            let files = index.files();
            return pick(&|shard| files.iter().any(|file| Path::new(file) == shard.path));
        }
        let root = |shard: &Shard| shard.path.components().count() == 1;
        let model = |shard: &Shard| shard.path.to_string_lossy().starts_with("model");
        let tries = [
            pick(&|shard| root(shard) && model(shard)),
            pick(&root),
            pick(&|_| true),
        ];
        tries
            .into_iter()
            .find(|shards| !shards.is_empty())
            .unwrap_or_default()
    }
}

/// Reads what lies in the directory of a model; a cached model without a snapshot has no files.
///
/// # Errors
/// If the directory cannot be listed.
pub fn read(found: &Found) -> Result<Facts> {
    let at = |e| Error::io(&found.path, e);
    let modified = fs::metadata(&found.path)
        .and_then(|data| data.modified())
        .map_err(at)?;
    let (files, strays) = walk::walk(found).map_err(at)?;
    let mut facts = Facts {
        found: found.clone(),
        modified,
        files,
        strays,
        config: Document::Absent,
        generation_config: Document::Absent,
        tokenizer_config: Document::Absent,
        preprocessor_config: Document::Absent,
        processor_config: Document::Absent,
        sentinel: Document::Absent,
        readme: FrontMatter::default(),
        index: None,
        shards: Vec::new(),
        chat_template: false,
        unfinished: unfinished(found).map_err(at)?,
    };
    facts.config = document(&facts, "config.json");
    facts.generation_config = document(&facts, "generation_config.json");
    facts.tokenizer_config = document(&facts, "tokenizer_config.json");
    facts.preprocessor_config = document(&facts, "preprocessor_config.json");
    facts.processor_config = document(&facts, "processor_config.json");
    if let Origin::Workspace = found.origin {
        facts.sentinel = document(&facts, ".mlxk_workspace.json");
    }
    facts.readme = readme(&facts);
    facts.index = index(&facts);
    facts.shards = shards(&facts);
    facts.chat_template = chat_template(&facts);
    Ok(facts)
}

fn document(facts: &Facts, name: &str) -> Document {
    match facts.file(name).map(|file| small(facts, file)) {
        None => Document::Absent,
        Some(Err(reason)) => Document::Unreadable(reason),
        Some(Ok(text)) => Document::parse(&text),
    }
}

fn index(facts: &Facts) -> Option<std::result::Result<Index, String>> {
    let file = facts.file("model.safetensors.index.json")?;
    let text = small(facts, file).map_err(|reason| format!("Invalid index file: {reason}"));
    Some(text.and_then(|text| Index::parse(&text)))
}

/// The content of a file that is small if it is what its name says.
fn small(facts: &Facts, file: &File) -> std::result::Result<Vec<u8>, String> {
    if file.size > MAX_DOCUMENT {
        return Err(format!(
            "{} bytes are over the limit of {MAX_DOCUMENT}",
            file.size
        ));
    }
    head(facts, file, MAX_DOCUMENT).map_err(|e| e.to_string())
}

/// The first `limit` bytes of a file.
fn head(facts: &Facts, file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(file.size.min(limit) as usize + 1);
    fs::File::open(facts.path(&file.path))?
        .take(limit)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn readme(facts: &Facts) -> FrontMatter {
    // A README that cannot be read says nothing; no model is worse for it.
    match facts
        .file("README.md")
        .map(|file| head(facts, file, MAX_FRONT_MATTER))
    {
        Some(Ok(text)) => FrontMatter::parse(&String::from_utf8_lossy(&text)),
        _ => FrontMatter::default(),
    }
}

fn shards(facts: &Facts) -> Vec<Shard> {
    let safetensors = |file: &&File| file.is("safetensors") && !file.pointer;
    let files = facts.files.iter().filter(safetensors);
    files
        .map(|file| Shard {
            path: file.path.clone(),
            header: header(facts, file),
        })
        .collect()
}

fn header(facts: &Facts, file: &File) -> std::result::Result<Header, String> {
    let mut open =
        fs::File::open(facts.path(&file.path)).map_err(|e| format!("cannot be read: {e}"))?;
    Header::read(&mut open, file.size)
}

/// Looks for a chat template, in `tokenizer.json`, which is large, only when nothing else tells.
fn chat_template(facts: &Facts) -> bool {
    let is_template = |value: Option<Value>| match value {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(named)) => !named.is_empty(),
        _ => false,
    };
    facts.has("chat_template.jinja")
        || facts.has("chat_template.json")
        || is_template(facts.tokenizer_config.get("chat_template"))
        || facts.file("tokenizer.json").is_some_and(|file| {
            // An unreadable tokenizer is found out by whoever needs it.
            contains(&facts.path(&file.path), b"\"chat_template\"").unwrap_or(false)
                && is_template(document(facts, "tokenizer.json").get("chat_template"))
        })
}

/// Searches a file of any size in little memory.
fn contains(path: &Path, needle: &[u8]) -> io::Result<bool> {
    let mut file = fs::File::open(path)?;
    let finder = memmem::Finder::new(needle);
    let mut window = vec![0; 64 << 10];
    let mut kept = 0;
    loop {
        let read = file.read(&mut window[kept..])?;
        let filled = kept + read;
        if read == 0 || finder.find(&window[..filled]).is_some() {
            return Ok(read != 0);
        }
        // The end of this window may be the start of a match.
        kept = filled.min(needle.len() - 1);
        window.copy_within(filled - kept..filled, 0);
    }
}

/// The blobs of which only a part has come, unless a later download brought them whole or a newer
/// revision is more likely to wait for them.
fn unfinished(found: &Found) -> io::Result<Vec<PathBuf>> {
    let Origin::Cache { repo } = &found.origin else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(repo.join("blobs")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut unfinished = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(etag) = name.strip_suffix(".incomplete") else {
            continue;
        };
        // `ETAG.incomplete`, or `ETAG.RANDOM.incomplete` since huggingface_hub 1.18.
        let etag = etag.split_once('.').map_or(etag, |(etag, _)| etag);
        let whole = repo.join("blobs").join(etag).exists();
        if !whole {
            unfinished.push(Path::new("blobs").join(name));
        }
    }
    unfinished.sort();
    let ours = unfinished.is_empty() || found.revision.is_none() || is_newest(&found.path)?;
    Ok(if ours { unfinished } else { Vec::new() })
}

/// True if no directory beside `snapshot` was changed after it.
fn is_newest(snapshot: &Path) -> io::Result<bool> {
    let changed = fs::metadata(snapshot)?.modified()?;
    let Some(parent) = snapshot.parent() else {
        return Ok(true);
    };
    for sibling in fs::read_dir(parent)? {
        if sibling?.metadata()?.modified()? > changed {
            return Ok(false);
        }
    }
    Ok(true)
}
