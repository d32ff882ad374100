//! One piece of a file from the Hub into its part: from Xet storage, or by a request for a range.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use mlxk_core::{Error, Kind};
use ureq::http::{Method, Response, StatusCode};
use ureq::{Body, ResponseExt};

use crate::client::{Call, Hub};
use crate::flow::{Flow, retry};
use crate::part::Part;
use crate::refusal::{Attempt, Failure};
use crate::xet::Storage;

/// Bytes that are taken from a connection at once.
const BUFFER: usize = 64 << 10;

/// Failures in a row after which Xet storage is left alone.
const XET_ATTEMPTS: u32 = 3;

/// Where a file is to be had.
#[derive(Debug)]
pub struct Source<'a> {
    /// The address at the Hub.
    url: String,
    /// Where that redirected to; such an address is good for a while.
    moved: Mutex<Option<String>>,
    /// The storage, and what that knows the file by.
    xet: Option<(&'a Storage, &'a str)>,
    /// How often in a row the storage failed.
    failures: AtomicU32,
}

impl<'a> Source<'a> {
    /// The file at `url`, which a storage may have under a hash of its own.
    pub fn new(url: String, xet: Option<(&'a Storage, &'a str)>) -> Source<'a> {
        Source { url, moved: Mutex::new(None), xet, failures: AtomicU32::new(0) }
    }

    /// Fetches what is missing of piece `i`; `moved` hears how many bytes came, and can end it.
    ///
    /// A storage that fails again and again, or once in a way that it always would, is not asked
    /// any more: what is missing then comes by plain ranges.
    pub fn fetch(
        &self,
        hub: &Hub,
        part: &Part,
        i: usize,
        moved: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Attempt<()> {
        let trusted = self.failures.load(Ordering::Relaxed) < XET_ATTEMPTS;
        let Some((storage, hash)) = self.xet.filter(|_| trusted) else {
            return self.fetch_range(hub, part, i, moved);
        };
        let Err(failure) = storage.fetch(hub, hash, part, i, moved) else {
            self.failures.store(0, Ordering::Relaxed);
            return Ok(());
        };
        let weight = if failure.transient { 1 } else { XET_ATTEMPTS };
        match self.failures.fetch_add(weight, Ordering::Relaxed) + weight < XET_ATTEMPTS {
            true => Err(failure),
            false => self.fetch_range(hub, part, i, moved),
        }
    }

    /// What came was not the file: the storage is not asked any more.
    pub fn distrust(&self) {
        self.failures.store(XET_ATTEMPTS, Ordering::Relaxed);
    }

    fn fetch_range(
        &self,
        hub: &Hub,
        part: &Part,
        i: usize,
        moved: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Attempt<()> {
        let (start, length) = part.span(i);
        let from = start + part.done(i);
        let range = format!("bytes={from}-{}", start + length - 1);
        let response = self.request(hub, &range)?;
        let skip = skip(&response, from, start + length, part.size())?;
        let mut flow = Flow::new(hub, response);
        flow.skip(skip)?;
        let mut buffer = vec![0; BUFFER];
        while part.done(i) < length {
            let wanted = (length - part.done(i)).min(BUFFER as u64) as usize;
            let count = flow.read(&mut buffer[..wanted])?;
            part.append(i, &buffer[..count])?;
            moved(count as u64)?;
        }
        Ok(())
    }

    /// Asks where the last answer came from, else the Hub. An address that has become invalid is
    /// forgotten.
    fn request(&self, hub: &Hub, range: &str) -> Attempt<Response<Body>> {
        let known = self.moved.lock().unwrap_or_else(|e| e.into_inner()).clone();
        let url = known.as_deref().unwrap_or(&self.url);
        // Compressed content would have neither the size nor the digest that are known.
        let headers = &[("range", range), ("accept-encoding", "identity")];
        let answer = hub.send(Call { method: &Method::GET, url, headers, body: &[] });
        let mut moved = self.moved.lock().unwrap_or_else(|e| e.into_inner());
        match &answer {
            Ok(response) if known.is_none() => {
                let uri = response.get_uri().to_string();
                *moved = Some(uri).filter(|uri| *uri != self.url);
            }
            Err(_) if known.is_some() => *moved = None,
            _ => {}
        }
        drop(moved);
        answer.map_err(|failure| Failure {
            transient: failure.transient || known.is_some(),
            ..failure
        })
    }
}

/// How many bytes of the answer come before those asked for.
///
/// A server that knows no ranges sends everything. One that has another size than the Hub lists
/// has another file.
fn skip(response: &Response<Body>, from: u64, end: u64, size: u64) -> Attempt<u64> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if response.status() != StatusCode::PARTIAL_CONTENT {
        let length: Option<u64> = header("content-length").and_then(|length| length.parse().ok());
        return match length.unwrap_or(size) {
            length if length == size => Ok(from),
            length => Err(other_size(size, length)),
        };
    }
    let range = header("content-range").and_then(|range| range.strip_prefix("bytes "));
    let range: Option<(u64, u64, u64)> = range.and_then(|range| {
        let (range, total) = range.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?, total.parse().unwrap_or(size)))
    });
    match range {
        Some((_, _, total)) if total != size => Err(other_size(size, total)),
        Some((first, last, _)) if first == from && last < end => Ok(0),
        _ => Err(retry("the server sends another range than was asked for")),
    }
}

fn other_size(listed: u64, sent: u64) -> Failure {
    let message = format!("the Hub lists {listed} bytes, but has {sent}");
    Failure::from(Error::new(Kind::DownloadFailed, "", message))
}
