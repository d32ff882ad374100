//! Body of a commit request: NDJSON lines with embedded small files, streamed from disk.

use std::fs::File;
use std::io::{self, Cursor, Read, Take};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mlxk_core::Result;
use mlxk_core::digest::Hasher;
use serde_json::{Value, json};

use super::change::{Change, Content};
use super::local::LocalFile;

/// Bytes of a file that are base64-encoded at a time; a multiple of three, so that chunks need no
/// padding.
const CHUNK: u64 = 48 << 10;

/// Reader of the body; it can be read once.
pub struct NdjsonBody<'a> {
    segments: std::vec::IntoIter<Segment<'a>>,
    text: Cursor<Vec<u8>>,
    file: Option<OpenFile<'a>>,
}

/// Segment of the body.
enum Segment<'a> {
    Text(String),
    /// Content of a file, and its git blob id.
    Content(&'a LocalFile, &'a str),
}

/// File that is being encoded.
struct OpenFile<'a> {
    source: Take<File>,
    hasher: Hasher,
    blob_id: &'a str,
}

impl<'a> NdjsonBody<'a> {
    /// Body with `header` and `changes`, and its length in bytes.
    ///
    /// # Errors
    /// If a file has changed since the push began. A file that changes later ends the stream with
    /// an error, so that no commit is created.
    pub fn new(header: Value, changes: &'a [Change]) -> Result<(NdjsonBody<'a>, u64)> {
        let mut segments = vec![line("header", header)];
        for Change { path, content } in changes {
            match content {
                Content::Large { file, sha256 } => {
                    let size = file.size;
                    let value =
                        json!({"path": path, "algo": "sha256", "oid": sha256, "size": size});
                    segments.push(line("lfsFile", value));
                }
                Content::Deleted => segments.push(line("deletedFile", json!({"path": path}))),
                Content::Small { file, blob_id } => {
                    file.unchanged()?;
                    let path = Value::from(*path);
                    let head = r#"{"key":"file","value":{"encoding":"base64","path":"#;
                    segments.push(Segment::Text(format!("{head}{path},\"content\":\"")));
                    segments.push(Segment::Content(file, blob_id));
                    segments.push(Segment::Text("\"}}\n".to_owned()));
                }
            }
        }
        let size = segments.iter().map(Segment::size).sum();
        Ok((
            NdjsonBody { segments: segments.into_iter(), text: Cursor::default(), file: None },
            size,
        ))
    }

    /// Loads the next text into the buffer; false at the end.
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
        match self.segments.next() {
            None => return Ok(false),
            Some(Segment::Text(text)) => self.text = Cursor::new(text.into_bytes()),
            Some(Segment::Content(file, blob_id)) => {
                let source = File::open(&file.disk_path)?.take(file.size);
                self.file = Some(OpenFile { source, hasher: Hasher::git(file.size), blob_id });
            }
        }
        Ok(true)
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(OpenFile { hasher, blob_id, .. }) = self.file.take() else {
            return Ok(());
        };
        match hasher.finish().to_string() == blob_id {
            true => Ok(()),
            false => Err(io::Error::other("a file changed while it was pushed")),
        }
    }
}

impl Segment<'_> {
    fn size(&self) -> u64 {
        match self {
            Segment::Text(text) => text.len() as u64,
            Segment::Content(file, _) => file.size.div_ceil(3) * 4,
        }
    }
}

fn line<'a>(key: &str, value: Value) -> Segment<'a> {
    Segment::Text(format!("{}\n", json!({"key": key, "value": value})))
}

impl Read for NdjsonBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.text.read(buffer)?;
            if read > 0 || buffer.is_empty() || !self.refill()? {
                return Ok(read);
            }
        }
    }
}
