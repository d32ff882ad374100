//! Download from Xet storage, where a file is a list of chunks that lie in larger objects (xorbs).
//!
//! Protocol: <https://huggingface.co/docs/xet>. The crate hf-xet is not used, because it brings an
//! async runtime and a hundred crates, and holds whole ranges of objects in memory, which no
//! journal can resume. Here chunks are written to the same partial file as range requests, which
//! take over when the storage fails.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use mlxk_core::{Error, Kind};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Method, StatusCode};

use crate::body::ResponseBody;
use crate::chunk::ChunkHeader;
use crate::client::{Hub, Request, parse};
use crate::error::{Attempt, Failure};
use crate::partial::Partial;

/// Longest reconstruction of one piece, in bytes of JSON.
const MAX_RECONSTRUCTION: u64 = 16 << 20;

/// Xet storage of the files of one model revision.
pub struct Storage {
    /// URL at the Hub that issues access tokens.
    token_url: String,
    access: Mutex<Option<CasAccess>>,
}

/// Access to the content-addressed storage (CAS): its URL and a temporary token.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CasAccess {
    access_token: String,
    cas_url: String,
}

/// Chunks that make up a range of a file (response of `/v1/reconstructions`).
#[derive(Deserialize)]
struct Reconstruction {
    /// Bytes of the first chunk that precede the range.
    offset_into_first_range: u64,
    terms: Vec<Term>,
    /// Download URLs of the objects, by object hash.
    fetch_info: HashMap<String, Vec<FetchInfo>>,
}

/// Consecutive chunks of one object; `range` counts chunks.
#[derive(Deserialize)]
struct Term {
    hash: String,
    range: Span,
}

/// Download URL of consecutive chunks of one object; `range` counts chunks.
#[derive(Deserialize)]
struct FetchInfo {
    range: Span,
    url: String,
    /// Byte range in the object; `end` is inclusive.
    url_range: Span,
}

#[derive(Clone, Copy, Deserialize)]
struct Span {
    start: u64,
    end: u64,
}

impl Storage {
    /// Storage of the files at `commit` of the model `id`; `None` if Xet is disabled.
    pub fn of(hub: &Hub, id: &str, commit: &str) -> Option<Storage> {
        let token_url = hub.api(&format!("models/{id}/xet-read-token/{commit}"));
        hub.remote().xet.then(|| Storage { token_url, access: Mutex::new(None) })
    }

    /// Downloads the missing bytes of piece `i` of the file with the Xet hash `hash`; `on_bytes`
    /// gets the size of every write, and ends the download with an error.
    pub fn fetch(
        &self,
        hub: &Hub,
        hash: &str,
        partial: &Partial,
        i: usize,
        on_bytes: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Attempt<()> {
        let (start, length) = partial.span(i);
        let reconstruction =
            self.reconstruction(hub, hash, start + partial.done(i), start + length)?;
        let mut skip = reconstruction.offset_into_first_range;
        let mut chunks: Option<ChunkReader> = None;
        for term in &reconstruction.terms {
            let info = reconstruction.info(term)?;
            let mut source = match chunks.take().filter(|chunks| chunks.leads_to(info, term)) {
                Some(chunks) => chunks,
                None => ChunkReader::open(hub, info)?,
            };
            while source.next < term.range.end && partial.done(i) < length {
                let wanted = source.next >= term.range.start;
                let chunk = source.chunk()?;
                let Some(bytes) = chunk.get(skip as usize..).filter(|_| wanted) else {
                    skip -= if wanted { chunk.len() as u64 } else { 0 };
                    continue;
                };
                skip = 0;
                let bytes = &bytes[..bytes.len().min((length - partial.done(i)) as usize)];
                partial.append(i, bytes)?;
                on_bytes(bytes.len() as u64)?;
            }
            chunks = Some(source);
        }
        if partial.done(i) < length { Err(protocol_error("lists too few chunks")) } else { Ok(()) }
    }

    /// Requests the chunks that make up the bytes `from..end` of the file `hash`.
    fn reconstruction(
        &self,
        hub: &Hub,
        hash: &str,
        from: u64,
        end: u64,
    ) -> Attempt<Reconstruction> {
        let CasAccess { access_token, cas_url } = self.access(hub)?;
        let url = format!("{}/v1/reconstructions/{hash}", cas_url.trim_end_matches('/'));
        let (token, range) =
            (format!("Bearer {access_token}"), format!("bytes={from}-{}", end - 1));
        let headers = &[("authorization", &*token), ("range", &*range)];
        let reconstruction =
            get_json(hub, Request { method: &Method::GET, url: &url, headers, body: &[] });
        if reconstruction.is_err() {
            *self.cached() = None; // the token may have expired
        }
        reconstruction
    }

    /// Cached access; if there is none, one thread requests it from the Hub and the others wait.
    fn access(&self, hub: &Hub) -> Attempt<CasAccess> {
        let mut held = self.cached();
        if let Some(access) = &*held {
            return Ok(access.clone());
        }
        let url = &*self.token_url;
        let request = Request { method: &Method::GET, url, headers: &[], body: &[] };
        let access: CasAccess = get_json(hub, request)?;
        if !hub.is_as_secure(&access.cas_url) {
            return Err(protocol_error("would get its token over an unencrypted connection"));
        }
        Ok(held.insert(access).clone())
    }

    fn cached(&self) -> MutexGuard<'_, Option<CasAccess>> {
        self.access.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage").field("token_url", &self.token_url).finish_non_exhaustive()
    }
}

impl Reconstruction {
    /// Download URL that covers the chunks of `term`.
    fn info(&self, term: &Term) -> Attempt<&FetchInfo> {
        let holds = |info: &&FetchInfo| {
            info.range.start <= term.range.start && term.range.end <= info.range.end
        };
        let infos = self.fetch_info.get(&term.hash).into_iter().flatten();
        infos.into_iter().find(holds).ok_or_else(|| protocol_error("does not say where chunks are"))
    }
}

/// Reader of consecutive chunks from one download.
struct ChunkReader<'a> {
    body: ResponseBody<'a>,
    url: String,
    start: u64,
    /// Index of the next chunk in its object.
    next: u64,
}

impl<'a> ChunkReader<'a> {
    fn open(hub: &'a Hub, info: &FetchInfo) -> Attempt<ChunkReader<'a>> {
        let FetchInfo { range, url, url_range: bytes } = info;
        let asked = format!("bytes={}-{}", bytes.start, bytes.end);
        let headers = &[("range", &*asked), ("accept-encoding", "identity")];
        let response = hub.send(Request { method: &Method::GET, url, headers, body: &[] })?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let mut body = ResponseBody::new(hub, response);
        if !partial {
            body.skip(bytes.start)?; // a server without range support sends the whole object
        }
        Ok(ChunkReader { body, url: url.clone(), start: range.start, next: range.start })
    }

    /// True if the same download goes on to the chunks of `term`, which `info` covers.
    fn leads_to(&self, info: &FetchInfo, term: &Term) -> bool {
        self.url == info.url && self.start == info.range.start && self.next <= term.range.start
    }

    /// Reads and decompresses the next chunk.
    fn chunk(&mut self) -> Attempt<Vec<u8>> {
        let mut header = [0; ChunkHeader::SIZE];
        self.body.fill(&mut header)?;
        let header =
            ChunkHeader::read(header).ok_or_else(|| protocol_error("sends an invalid chunk"))?;
        let mut data = vec![0; header.compressed_len];
        self.body.fill(&mut data)?;
        self.next += 1;
        header
            .decompress(data)
            .ok_or_else(|| protocol_error("sends a chunk that cannot be decompressed"))
    }
}

/// Sends `request` once and parses the JSON of the response.
fn get_json<T: DeserializeOwned>(hub: &Hub, request: Request) -> Attempt<T> {
    let mut response = hub.send(request)?;
    let body = response.body_mut().with_config().limit(MAX_RECONSTRUCTION).read_to_vec();
    let body = body.map_err(|e| hub.network_failure(e, request.url))?;
    parse(&body).map_err(|_| protocol_error("sends an unexpected response"))
}

/// Final failure: the storage does not follow the protocol.
fn protocol_error(what: &str) -> Failure {
    Failure::from(Error::new(Kind::DownloadFailed, "", format!("the Xet storage {what}")))
}
