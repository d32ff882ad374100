//! Upload of large files with Git LFS, in the parts that the Hub asks for, several in parallel.
//!
//! Content that LFS storage has already, from an interrupted push or another repository, is not
//! sent again.

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
use super::{PushOptions, pool, with_subject};
use crate::client::{Hub, Request};
use crate::error::Attempt;
use mlxk_core::progress::{Listener, Progress};

/// Parallel uploads.
const WORKERS: usize = 8;

/// Files per request to the LFS batch API.
const BATCH: usize = 100;

const LFS: [(&str, &str); 2] =
    [("accept", "application/vnd.git-lfs+json"), ("content-type", "application/vnd.git-lfs+json")];

/// Uploads the large files of `changes` to LFS storage.
pub fn large_files(
    hub: &Hub,
    options: &PushOptions,
    changes: &[Change],
    progress: Listener,
) -> Result<()> {
    // Content that two files share is sent once.
    let mut wanted: BTreeMap<&str, &LocalFile> = BTreeMap::new();
    for change in changes {
        if let Content::Large { file, sha256 } = &change.content {
            wanted.insert(sha256, file);
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    let mut objects = Vec::new();
    for batch in wanted.chunks(BATCH) {
        objects.extend(request_batch(hub, options, batch, progress)?);
    }
    let total: u64 = wanted.iter().map(|(_, file)| file.size).sum();
    let due: u64 = objects.iter().map(|object| object.file.size).sum();
    progress(Progress::Plan { files: wanted.len(), bytes: total, present: total - due });
    let upload_parts: Vec<_> = objects.iter().flat_map(Object::upload_parts).collect();
    for object in &objects {
        progress(Progress::Begin { path: &object.file.path, size: object.file.size, present: 0 });
    }
    pool::for_each(&upload_parts, WORKERS, |part| part.send(hub, progress))
}

/// File that LFS storage does not have.
struct Object<'a> {
    file: &'a LocalFile,
    oid: &'a str,
    upload: Action,
    verify: Option<Action>,
    /// Size and URLs of the parts; `None` for a single upload.
    parts: Option<(u64, Vec<String>)>,
    /// ETags of the parts sent, by part number.
    etags: Mutex<HashMap<usize, String>>,
}

#[derive(Deserialize)]
struct BatchResponse {
    objects: Vec<BatchObject>,
}

#[derive(Deserialize)]
struct BatchObject {
    oid: String,
    actions: Option<Actions>,
    error: Option<BatchError>,
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
struct BatchError {
    message: String,
}

/// Requests which of the files `wanted` to send, and their upload URLs.
fn request_batch<'a>(
    hub: &Hub,
    options: &PushOptions,
    wanted: &[(&'a str, &'a LocalFile)],
    progress: Listener,
) -> Result<Vec<Object<'a>>> {
    let objects: Vec<_> =
        wanted.iter().map(|(oid, file)| json!({"oid": oid, "size": file.size})).collect();
    let body = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "objects": objects,
        "hash_algo": "sha256",
        "ref": {"name": options.branch},
    });
    let url = format!("{}/{}.git/info/lfs/objects/batch", hub.remote().endpoint, options.repo);
    let body = body.to_string();
    let request =
        Request { method: &Method::POST, url: &url, headers: &LFS, body: body.as_bytes() };
    let (response, _): (BatchResponse, _) =
        hub.json(request, progress).map_err(|e| e.about(&options.repo))?;
    let mut listed: HashMap<_, _> =
        response.objects.into_iter().map(|object| (object.oid.clone(), object)).collect();
    let mut objects = Vec::new();
    for (oid, file) in wanted {
        let listed_object = listed
            .remove(*oid)
            .ok_or_else(|| invalid_response(file, "does not say where to put it"))?;
        if let Some(problem) = listed_object.error {
            return Err(invalid_response(file, &format!("refuses it: {}", problem.message)));
        }
        let actions = listed_object.actions.unwrap_or(Actions { upload: None, verify: None });
        if let Some(upload) = actions.upload {
            let parts = parts(file, &upload)?;
            let (verify, etags) = (actions.verify, Mutex::default());
            objects.push(Object { file, oid, upload, verify, parts, etags });
        }
    }
    Ok(objects)
}

/// Parts that the Hub asks for: their size (the last may be shorter), and a URL for each number
/// from 1 on. `None` for a single upload.
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
        None => Err(invalid_response(file, "asks for parts that do not make up the file")),
    }
}

/// Part of a file that is sent in one request.
struct UploadPart<'a> {
    object: &'a Object<'a>,
    /// Part number from 1 on; 0 for a file in one part.
    number: usize,
    url: &'a str,
    offset: u64,
    size: u64,
}

impl Object<'_> {
    fn upload_parts(&self) -> Vec<UploadPart<'_>> {
        let total = self.file.size;
        match &self.parts {
            None => {
                let url = &self.upload.href;
                vec![UploadPart { object: self, number: 0, url, offset: 0, size: total }]
            }
            Some((size, urls)) => {
                let part = |(index, url)| {
                    let offset = index as u64 * size;
                    let size = (*size).min(total - offset);
                    UploadPart { object: self, number: index + 1, url, offset, size }
                };
                urls.iter().map(String::as_str).enumerate().map(part).collect()
            }
        }
    }

    /// Completes a multipart upload, and has the Hub verify the object.
    fn finish(&self, etags: &HashMap<usize, String>, hub: &Hub, progress: Listener) -> Result<()> {
        let path = &self.file.path;
        self.file.unchanged()?;
        let post = |url: &str, body: Value| -> Result<()> {
            let body = body.to_string();
            let request =
                Request { method: &Method::POST, url, headers: &LFS, body: body.as_bytes() };
            hub.retry(path, progress, || hub.send(request)).map_err(|e| with_subject(e, path))?;
            Ok(())
        };
        if let Some((_, urls)) = &self.parts {
            let part = |number| json!({"partNumber": number, "etag": etags.get(&number)});
            let parts: Vec<_> = (1..=urls.len()).map(part).collect();
            post(&self.upload.href, json!({"oid": self.oid, "parts": parts}))?;
        }
        if let Some(verify) = &self.verify {
            post(&verify.href, json!({"oid": self.oid, "size": self.file.size}))?;
        }
        progress(Progress::Done { path });
        Ok(())
    }
}

impl UploadPart<'_> {
    /// Sends the part with retries, and finishes the file if it was the last one.
    fn send(&self, hub: &Hub, progress: Listener) -> Result<()> {
        let file = self.object.file;
        let etag = hub.retry(&file.path, progress, || self.attempt(hub, progress));
        let etag = etag.map_err(|e| with_subject(e, &file.path))?;
        let mut etags = self.object.etags.lock().unwrap_or_else(|e| e.into_inner());
        etags.insert(self.number, etag);
        let expected = self.object.parts.as_ref().map_or(1, |(_, urls)| urls.len());
        match etags.len() == expected {
            true => self.object.finish(&etags, hub, progress),
            false => Ok(()),
        }
    }

    fn attempt(&self, hub: &Hub, progress: Listener) -> Attempt<String> {
        let file = self.object.file;
        file.unchanged()?;
        let at = |e| Error::io(&file.disk_path, e);
        let mut source = File::open(&file.disk_path).map_err(at)?;
        source.seek(SeekFrom::Start(self.offset)).map_err(at)?;
        let mut body =
            ProgressReader { source: source.take(self.size), path: &file.path, progress, moved: 0 };
        let request = Request { method: &Method::PUT, url: self.url, headers: &[], body: &[] };
        let sent = hub.upload(request, &mut body, self.size);
        if sent.is_err() {
            progress(Progress::Lost { path: &file.path, bytes: body.moved });
        }
        let response = sent?;
        let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
        match etag {
            None if self.number > 0 => {
                Err(invalid_response(file, "gives no ETag for a part").into())
            }
            etag => Ok(etag.unwrap_or_default().to_owned()),
        }
    }
}

/// Request body that reports how many bytes were read from it.
struct ProgressReader<'a> {
    source: io::Take<File>,
    path: &'a str,
    progress: Listener<'a>,
    moved: u64,
}

impl Read for ProgressReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if read == 0 && self.source.limit() > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.moved += read as u64;
        (self.progress)(Progress::Moved { path: self.path, bytes: read as u64 });
        Ok(read)
    }
}

fn invalid_response(file: &LocalFile, what: &str) -> Error {
    Error::new(Kind::UploadFailed, &file.path, format!("the Hub {what}"))
}
