//! Reads the files of a model: small ones as a whole, of large ones the beginning.

use std::io::{self, Read};
use std::path::Path;

use memchr::memmem;
use serde_json::Value;

use super::walk::{self, File};
use super::{FrontMatter, Shard};
use crate::json::Document;
use crate::regular_file;
use crate::tensors::{Header, INDEX, Index};

/// The maximum size of a JSON file in bytes; larger ones are not read.
const MAX_DOCUMENT: u64 = 16 << 20;

/// The number of bytes of a README that are searched for front matter.
const MAX_FRONT_MATTER: u64 = 64 << 10;

/// Reads the files that a walk has found, and only these.
pub struct Reader<'a> {
    model: &'a Path,
    files: &'a [File],
}

impl<'a> Reader<'a> {
    /// A reader for the directory `model` with its sorted `files`.
    pub fn new(model: &'a Path, files: &'a [File]) -> Self {
        Reader { model, files }
    }

    /// The JSON file `name`.
    pub fn document(&self, name: &str) -> Document {
        match self.text(name) {
            None => Document::Absent,
            Some(Ok(text)) => Document::parse(&text),
            Some(Err(reason)) => Document::Unreadable(reason),
        }
    }

    /// The index of a sharded model, or the reason why it is invalid; none if it does not exist.
    pub fn index(&self) -> Option<Result<Index, String>> {
        let unreadable = |reason| format!("Invalid index file: cannot be read: {reason}");
        Some(self.text(INDEX)?.map_err(unreadable).and_then(|text| Index::parse(&text)))
    }

    /// The content of the small file `name`, or the reason why it cannot be read; none if it does not
    /// exist.
    fn text(&self, name: &str) -> Option<Result<Vec<u8>, String>> {
        let file = self.file(name)?;
        if file.size > MAX_DOCUMENT {
            return Some(Err(format!("{} bytes are over the limit of {MAX_DOCUMENT}", file.size)));
        }
        Some(regular_file::read_small(&self.path(file), MAX_DOCUMENT).map_err(|e| e.to_string()))
    }

    /// The safetensors files among `weights` that are not pointers of Git LFS.
    pub fn shards(&self, weights: Vec<&File>) -> Vec<Shard> {
        let files = weights.into_iter().filter(|file| file.is("safetensors") && !file.pointer);
        files.map(|file| Shard { path: file.path.clone(), header: self.header(file) }).collect()
    }

    fn header(&self, file: &File) -> Result<Header, String> {
        let mut open =
            regular_file::open(&self.path(file)).map_err(|e| format!("cannot be read: {e}"))?;
        Header::read(&mut open, file.size)
    }

    /// The front matter of the README; empty if it cannot be read, since a model works without it.
    pub fn front_matter(&self) -> FrontMatter {
        match self.file("README.md").map(|file| self.head(file, MAX_FRONT_MATTER)) {
            Some(Ok(text)) => FrontMatter::parse(&String::from_utf8_lossy(&text)),
            _ => FrontMatter::default(),
        }
    }

    /// True if a chat template exists; `tokenizer.json`, which is large, is searched last.
    pub fn chat_template(&self, tokenizer_config: &Document) -> bool {
        let is_template = |value: Option<Value>| match value {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(named)) => !named.is_empty(),
            _ => false,
        };
        self.file("chat_template.jinja").is_some()
            || self.file("chat_template.json").is_some()
            || is_template(tokenizer_config.get("chat_template"))
            || self.file("tokenizer.json").is_some_and(|file| {
                // An unreadable tokenizer is reported when the model is loaded.
                contains(&self.path(file), b"\"chat_template\"").unwrap_or(false)
                    && is_template(self.document("tokenizer.json").get("chat_template"))
            })
    }

    fn file(&self, name: &str) -> Option<&'a File> {
        walk::find(self.files, Path::new(name))
    }

    fn path(&self, file: &File) -> std::path::PathBuf {
        self.model.join(&file.path)
    }

    /// The first `limit` bytes of a file.
    fn head(&self, file: &File, limit: u64) -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(file.size.min(limit) as usize + 1);
        regular_file::open(&self.path(file))?.take(limit).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// True if the file contains `needle`; files of any size are searched in windows of 64 KiB.
fn contains(path: &Path, needle: &[u8]) -> io::Result<bool> {
    let mut file = regular_file::open(path)?;
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
