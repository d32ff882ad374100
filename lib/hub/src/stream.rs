//! Download of one piece of a file into its partial file: from Xet storage, or with a range
//! request.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use mlxk_core::{Error, Kind};
use ureq::http::{Method, Response, StatusCode};
use ureq::{Body, ResponseExt};

use crate::body::ResponseBody;
use crate::client::{Hub, Request};
use crate::error::{Attempt, Failure};
use crate::partial::Partial;
use crate::xet::Storage;

/// Bytes read from a connection at a time.
const BUFFER: usize = 64 << 10;

/// Consecutive failures after which Xet storage is no longer used for a file.
const MAX_XET_FAILURES: u32 = 3;

/// Sources of one file: its URL at the Hub, and Xet storage.
#[derive(Debug)]
pub struct Source<'a> {
    /// Download URL at the Hub.
    url: String,
    /// Signed URL that the Hub last redirected to; it expires after a while.
    redirect: Mutex<Option<String>>,
    /// Xet storage and the file's Xet hash.
    xet: Option<(&'a Storage, &'a str)>,
    /// Consecutive failures of Xet storage.
    xet_failures: AtomicU32,
}

impl<'a> Source<'a> {
    /// Sources of the file at `url`, with its Xet storage and hash if it has one.
    pub fn new(url: String, xet: Option<(&'a Storage, &'a str)>) -> Source<'a> {
        Source { url, redirect: Mutex::new(None), xet, xet_failures: AtomicU32::new(0) }
    }

    /// Downloads the missing bytes of piece `i`; `on_bytes` gets the size of every write, and ends
    /// the download with an error.
    ///
    /// Xet storage is tried first. After a final failure, or several consecutive transient ones,
    /// the file's remaining bytes come with range requests.
    pub fn fetch(
        &self,
        hub: &Hub,
        partial: &Partial,
        i: usize,
        on_bytes: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Attempt<()> {
        let usable = self.xet_failures.load(Ordering::Relaxed) < MAX_XET_FAILURES;
        let Some((storage, hash)) = self.xet.filter(|_| usable) else {
            return self.fetch_range(hub, partial, i, on_bytes);
        };
        let Err(failure) = storage.fetch(hub, hash, partial, i, on_bytes) else {
            self.xet_failures.store(0, Ordering::Relaxed);
            return Ok(());
        };
        let weight = if failure.transient { 1 } else { MAX_XET_FAILURES };
        match self.xet_failures.fetch_add(weight, Ordering::Relaxed) + weight < MAX_XET_FAILURES {
            true => Err(failure),
            false => self.fetch_range(hub, partial, i, on_bytes),
        }
    }

    /// Stops using Xet storage for this file, because its content failed verification.
    pub fn disable_xet(&self) {
        self.xet_failures.store(MAX_XET_FAILURES, Ordering::Relaxed);
    }

    fn fetch_range(
        &self,
        hub: &Hub,
        partial: &Partial,
        i: usize,
        on_bytes: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Attempt<()> {
        let (start, length) = partial.span(i);
        let from = start + partial.done(i);
        let range = format!("bytes={from}-{}", start + length - 1);
        let response = self.send(hub, &range)?;
        let skip = bytes_to_skip(&response, from, start + length, partial.size())?;
        let mut body = ResponseBody::new(hub, response);
        body.skip(skip)?;
        let mut buffer = vec![0; BUFFER];
        while partial.done(i) < length {
            let wanted = (length - partial.done(i)).min(BUFFER as u64) as usize;
            let count = body.read(&mut buffer[..wanted])?;
            partial.append(i, &buffer[..count])?;
            on_bytes(count as u64)?;
        }
        Ok(())
    }

    /// Sends a range request to the last redirect, or else to the Hub. A redirect that fails is
    /// forgotten.
    fn send(&self, hub: &Hub, range: &str) -> Attempt<Response<Body>> {
        let known = self.redirect.lock().unwrap_or_else(|e| e.into_inner()).clone();
        let url = known.as_deref().unwrap_or(&self.url);
        // Size and digest are those of the uncompressed content.
        let headers = &[("range", range), ("accept-encoding", "identity")];
        let response = hub.send(Request { method: &Method::GET, url, headers, body: &[] });
        let mut redirect = self.redirect.lock().unwrap_or_else(|e| e.into_inner());
        match &response {
            Ok(response) if known.is_none() => {
                let uri = response.get_uri().to_string();
                *redirect = Some(uri).filter(|uri| *uri != self.url);
            }
            Err(_) if known.is_some() => *redirect = None,
            _ => {}
        }
        drop(redirect);
        response.map_err(|failure| Failure {
            transient: failure.transient || known.is_some(),
            ..failure
        })
    }
}

/// Bytes of the response that precede the requested range `from..end` of a file of `size` bytes.
///
/// A server without range support sends the whole file. A size other than the listed one is final.
fn bytes_to_skip(response: &Response<Body>, from: u64, end: u64, size: u64) -> Attempt<u64> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if response.status() != StatusCode::PARTIAL_CONTENT {
        let length: Option<u64> = header("content-length").and_then(|length| length.parse().ok());
        return match length.unwrap_or(size) {
            length if length == size => Ok(from),
            length => Err(size_mismatch(size, length)),
        };
    }
    let range = header("content-range").and_then(|range| range.strip_prefix("bytes "));
    let range: Option<(u64, u64, u64)> = range.and_then(|range| {
        let (range, total) = range.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?, total.parse().unwrap_or(size)))
    });
    match range {
        Some((_, _, total)) if total != size => Err(size_mismatch(size, total)),
        Some((first, last, _)) if first == from && last < end => Ok(0),
        _ => Err(Failure::transient("the server sends another range than was asked for")),
    }
}

fn size_mismatch(listed: u64, sent: u64) -> Failure {
    let message = format!("the Hub lists {listed} bytes, but has {sent}");
    Failure::from(Error::new(Kind::DownloadFailed, "", message))
}
