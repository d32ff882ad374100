//! Large files: by the protocol of Git LFS, in the parts that the Hub asks for, several at a time.
//!
//! What the storage has already, from an upload that was broken off or from another repository, is
//! not sent again.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Mutex;

use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::change::{Change, Content};
use super::local::LocalFile;
use super::{Wish, named, pool};
use crate::client::{Call, Hub};
use crate::event::{Event, Listener};
use crate::refusal::Attempt;

/// Parts on their way at the same time.
const WORKERS: usize = 8;

/// Files asked about in one question.
const BATCH: usize = 100;

const LFS: [(&str, &str); 2] =
    [("accept", "application/vnd.git-lfs+json"), ("content-type", "application/vnd.git-lfs+json")];

/// Puts the large files of `changes` into the Hub's storage.
pub fn large(hub: &Hub, wish: &Wish, changes: &[Change], told: Listener) -> Result<()> {
    // The same content under two names goes once.
    let mut wanted: BTreeMap<&str, &LocalFile> = BTreeMap::new();
    for change in changes {
        if let Content::Large { file, sha256 } = &change.content {
            wanted.insert(sha256, file);
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    let mut objects = Vec::new();
    for batch in wanted.chunks(BATCH) {
        objects.extend(ask(hub, wish, batch, told)?);
    }
    let total: u64 = wanted.iter().map(|(_, file)| file.size).sum();
    let due: u64 = objects.iter().map(|object| object.file.size).sum();
    told(Event::Plan { files: wanted.len(), bytes: total, present: total - due });
    let pieces: Vec<_> = objects.iter().flat_map(Object::pieces).collect();
    for object in &objects {
        told(Event::Begin { path: &object.file.path, size: object.file.size, present: 0 });
    }
    pool::each(&pieces, WORKERS, |piece| piece.send(hub, told))
}

/// A file that the storage has not.
struct Object<'a> {
    file: &'a LocalFile,
    oid: &'a str,
    upload: Action,
    verify: Option<Action>,
    /// Of a file in parts: their size and addresses.
    parts: Option<(u64, Vec<String>)>,
    /// The receipts of the parts that have arrived, by number.
    receipts: Mutex<HashMap<usize, String>>,
}

#[derive(Deserialize)]
struct Answer {
    objects: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    oid: String,
    actions: Option<Actions>,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: HashMap<String, Value>,
}

#[derive(Deserialize)]
struct Problem {
    message: String,
}

/// Asks which of the files `wanted` are to be sent, and where to.
fn ask<'a>(
    hub: &Hub,
    wish: &Wish,
    wanted: &[(&'a str, &'a LocalFile)],
    told: Listener,
) -> Result<Vec<Object<'a>>> {
    let objects: Vec<_> =
        wanted.iter().map(|(oid, file)| json!({"oid": oid, "size": file.size})).collect();
    let body = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": objects,
        "hash_algo": "sha256",
        "ref": {"name": wish.branch},
    });
    let url = format!("{}/{}.git/info/lfs/objects/batch", hub.remote().endpoint, wish.repo);
    let body = body.to_string();
    let call = Call { method: &Method::POST, url: &url, headers: &LFS, body: body.as_bytes() };
    let (answer, _): (Answer, _) = hub.answer(call, told).map_err(|e| e.about(&wish.repo))?;
    let mut said: HashMap<_, _> =
        answer.objects.into_iter().map(|said| (said.oid.clone(), said)).collect();
    let mut objects = Vec::new();
    for (oid, file) in wanted {
        let said = said.remove(*oid).ok_or_else(|| odd(file, "does not say where to put it"))?;
        if let Some(problem) = said.error {
            return Err(odd(file, &format!("refuses it: {}", problem.message)));
        }
        let actions = said.actions.unwrap_or(Actions { upload: None, verify: None });
        if let Some(upload) = actions.upload {
            let parts = parts(file, &upload)?;
            let (verify, receipts) = (actions.verify, Mutex::default());
            objects.push(Object { file, oid, upload, verify, parts, receipts });
        }
    }
    Ok(objects)
}

/// The parts that the Hub asks for: an address for each number from 1 on, and the size of all but
/// the last.
fn parts(file: &LocalFile, upload: &Action) -> Result<Option<(u64, Vec<String>)>> {
    let Some(size) = upload.header.get("chunk_size") else {
        return Ok(None);
    };
    let number = size.as_u64().or_else(|| size.as_str()?.parse().ok());
    let size = number.filter(|size| *size > 0);
    let mut addresses: Vec<(u64, &str)> = Vec::new();
    for (key, value) in &upload.header {
        if let (Ok(number), Some(url)) = (key.parse(), value.as_str()) {
            addresses.push((number, url));
        }
    }
    addresses.sort_unstable();
    let count = addresses.len() as u64;
    let whole = addresses.iter().map(|(number, _)| *number).eq(1..=count);
    match size.filter(|size| whole && file.size.div_ceil(*size) == count) {
        Some(size) => {
            Ok(Some((size, addresses.into_iter().map(|(_, url)| url.to_owned()).collect())))
        }
        None => Err(odd(file, "asks for parts that do not make up the file")),
    }
}

/// What goes in one request.
struct Piece<'a> {
    object: &'a Object<'a>,
    /// From 1 on; 0 for a file in one piece.
    number: usize,
    url: &'a str,
    offset: u64,
    size: u64,
}

impl Object<'_> {
    fn pieces(&self) -> Vec<Piece<'_>> {
        let total = self.file.size;
        match &self.parts {
            None => {
                let url = &self.upload.href;
                vec![Piece { object: self, number: 0, url, offset: 0, size: total }]
            }
            Some((size, urls)) => {
                let piece = |(index, url)| {
                    let offset = index as u64 * size;
                    let size = (*size).min(total - offset);
                    Piece { object: self, number: index + 1, url, offset, size }
                };
                urls.iter().map(String::as_str).enumerate().map(piece).collect()
            }
        }
    }

    /// Has the storage put the parts together, and the Hub look at the result.
    fn finish(&self, receipts: &HashMap<usize, String>, hub: &Hub, told: Listener) -> Result<()> {
        let path = &self.file.path;
        self.file.unchanged()?;
        let post = |url: &str, body: Value| -> Result<()> {
            let body = body.to_string();
            let call = Call { method: &Method::POST, url, headers: &LFS, body: body.as_bytes() };
            hub.patiently(path, told, || hub.send(call)).map_err(|e| named(e, path))?;
            Ok(())
        };
        if let Some((_, urls)) = &self.parts {
            let part = |number| json!({"partNumber": number, "etag": receipts.get(&number)});
            let parts: Vec<_> = (1..=urls.len()).map(part).collect();
            post(&self.upload.href, json!({"oid": self.oid, "parts": parts}))?;
        }
        if let Some(verify) = &self.verify {
            post(&verify.href, json!({"oid": self.oid, "size": self.file.size}))?;
        }
        told(Event::Done { path });
        Ok(())
    }
}

impl Piece<'_> {
    /// Sends the piece, and finishes the file if it was the last one missing.
    fn send(&self, hub: &Hub, told: Listener) -> Result<()> {
        let file = self.object.file;
        let receipt = hub.patiently(&file.path, told, || self.attempt(hub, told));
        let receipt = receipt.map_err(|e| named(e, &file.path))?;
        let mut receipts = self.object.receipts.lock().unwrap_or_else(|e| e.into_inner());
        receipts.insert(self.number, receipt);
        let expected = self.object.parts.as_ref().map_or(1, |(_, urls)| urls.len());
        match receipts.len() == expected {
            true => self.object.finish(&receipts, hub, told),
            false => Ok(()),
        }
    }

    fn attempt(&self, hub: &Hub, told: Listener) -> Attempt<String> {
        let file = self.object.file;
        file.unchanged()?;
        let at = |e| Error::io(&file.disk, e);
        let mut source = File::open(&file.disk).map_err(at)?;
        source.seek(SeekFrom::Start(self.offset)).map_err(at)?;
        let mut body = Counted { source: source.take(self.size), path: &file.path, told, moved: 0 };
        let call = Call { method: &Method::PUT, url: self.url, headers: &[], body: &[] };
        let sent = hub.upload(call, &mut body, self.size);
        if sent.is_err() {
            told(Event::Lost { path: &file.path, bytes: body.moved });
        }
        let response = sent?;
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        match etag {
            None if self.number > 0 => Err(odd(file, "gives no receipt for a part").into()),
            etag => Ok(etag.unwrap_or_default().to_owned()),
        }
    }
}

/// A body that tells how much of it has gone.
struct Counted<'a> {
    source: io::Take<File>,
    path: &'a str,
    told: Listener<'a>,
    moved: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0 && self.source.limit() > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.moved += read as u64;
        (self.told)(Event::Moved { path: self.path, bytes: read as u64 });
        Ok(read)
    }
}

fn odd(file: &LocalFile, what: &str) -> Error {
    Error::new(Kind::UploadFailed, &file.path, format!("the Hub {what}"))
}
