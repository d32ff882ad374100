//! The body of a commit: a stream of lines in which small files stand whole, never held in memory.

use std::fs::File;
use std::io::{self, Cursor, Read, Take};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mlxk_core::Result;
use mlxk_core::digest::Hasher;
use serde_json::{Value, json};

use super::change::{Change, Content};
use super::local::LocalFile;

/// Bytes of a file that are encoded at a time; a multiple of three, so that the texts join.
const CHUNK: u64 = 48 << 10;

/// The lines, to be read once.
pub struct Lines<'a> {
    parts: std::vec::IntoIter<Part<'a>>,
    text: Cursor<Vec<u8>>,
    file: Option<Open<'a>>,
}

/// A part of the stream.
enum Part<'a> {
    Text(String),
    /// The content of a file and what Git calls it.
    Content(&'a LocalFile, &'a str),
}

/// A file that is being read.
struct Open<'a> {
    source: Take<File>,
    hasher: Hasher,
    blob_id: &'a str,
}

impl<'a> Lines<'a> {
    /// The lines of `changes` below those of `header`, and how many bytes they are.
    ///
    /// Errors if a file is not as it was. One that changes while it is read ends the stream with an
    /// error, so that there is no commit.
    pub fn new(header: Value, changes: &'a [Change]) -> Result<(Lines<'a>, u64)> {
        let mut parts = vec![line("header", header)];
        for Change { path, content } in changes {
            match content {
                Content::Large { file, sha256 } => {
                    let size = file.size;
                    let value =
                        json!({"path": path, "algo": "sha256", "oid": sha256, "size": size});
                    parts.push(line("lfsFile", value));
                }
                Content::Deleted => parts.push(line("deletedFile", json!({"path": path}))),
                Content::Small { file, blob_id } => {
                    file.unchanged()?;
                    let path = Value::from(*path);
                    let head = r#"{"key":"file","value":{"encoding":"base64","path":"#;
                    parts.push(Part::Text(format!("{head}{path},\"content\":\"")));
                    parts.push(Part::Content(file, blob_id));
                    parts.push(Part::Text("\"}}\n".to_owned()));
                }
            }
        }
        let size = parts.iter().map(Part::size).sum();
        Ok((Lines { parts: parts.into_iter(), text: Cursor::default(), file: None }, size))
    }

    /// Gets more text ready; false at the end.
    fn refill(&mut self) -> io::Result<bool> {
        if let Some(open) = &mut self.file {
            let mut bytes = Vec::new();
            (&mut open.source).take(CHUNK).read_to_end(&mut bytes)?;
            open.hasher.update(&bytes);
            self.text = Cursor::new(STANDARD.encode(&bytes).into_bytes());
            if bytes.len() < CHUNK as usize {
                self.close()?;
            }
            return Ok(true);
        }
        match self.parts.next() {
            None => return Ok(false),
            Some(Part::Text(text)) => self.text = Cursor::new(text.into_bytes()),
            Some(Part::Content(file, blob_id)) => {
                let source = File::open(&file.disk)?.take(file.size);
                self.file = Some(Open { source, hasher: Hasher::git(file.size), blob_id });
            }
        }
        Ok(true)
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(Open { hasher, blob_id, .. }) = self.file.take() else {
            return Ok(());
        };
        match hasher.finish().to_string() == blob_id {
            true => Ok(()),
            false => Err(io::Error::other("a file changed while it was pushed")),
        }
    }
}

impl Part<'_> {
    fn size(&self) -> u64 {
        match self {
            Part::Text(text) => text.len() as u64,
            Part::Content(file, _) => file.size.div_ceil(3) * 4,
        }
    }
}

fn line<'a>(key: &str, value: Value) -> Part<'a> {
    Part::Text(format!("{}\n", json!({"key": key, "value": value})))
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.text.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.refill()? {
                return Ok(read);
            }
        }
    }
}
