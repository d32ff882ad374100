//! One piece of a file from the Hub's plain HTTP into its part, by a request for a range.

use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mlxk_core::{Error, Kind};
use ureq::http::{Method, Response, StatusCode};
use ureq::{Body, ResponseExt};

use crate::client::{Call, Hub};
use crate::part::Part;
use crate::refusal::{Attempt, Failure};

/// Bytes that are taken from a connection at once.
const BUFFER: usize = 256 << 10;

/// A connection that brings fewer bytes than these in that time is as good as a silent one.
const TRICKLE: (u64, Duration) = (32 << 10, Duration::from_secs(30));

/// Where a file is to be had.
#[derive(Debug)]
pub struct Source {
    /// The address at the Hub.
    url: String,
    /// Where that redirected to; such an address is good for a while.
    moved: Mutex<Option<String>>,
}

impl Source {
    /// The file at `url`.
    pub fn new(url: String) -> Source {
        Source { url, moved: Mutex::new(None) }
    }

    /// Fetches what is missing of piece `i`; `moved` hears how many bytes came, and can end it.
    pub fn fetch(
        &self,
        hub: &Hub,
        part: &Part,
        i: usize,
        moved: &dyn Fn(u64) -> Result<(), Error>,
    ) -> Attempt<()> {
        let (start, length) = part.span(i);
        let from = start + part.done(i);
        let range = format!("bytes={from}-{}", start + length - 1);
        let mut response = self.request(hub, &range)?;
        let skip = skip(&response, from, start + length, part.size())?;
        let url = response.get_uri().to_string();
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        let mut pace = Pace::new();
        let mut read = |bytes: &mut [u8]| -> Attempt<usize> {
            let lost = |e| hub.lost(ureq::Error::from(e), &url);
            let count = body.read(bytes).map_err(lost)?;
            pace.count(count)?;
            hub.check()?;
            Ok(count)
        };
        let mut buffer = vec![0; BUFFER];
        discard(skip, &mut buffer, &mut read)?;
        while part.done(i) < length {
            let wanted = (length - part.done(i)).min(BUFFER as u64) as usize;
            let count = read(&mut buffer[..wanted])?;
            if count == 0 {
                return Err(cut());
            }
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

fn discard(
    mut bytes: u64,
    buffer: &mut [u8],
    read: &mut impl FnMut(&mut [u8]) -> Attempt<usize>,
) -> Attempt<()> {
    while bytes > 0 {
        let wanted = bytes.min(buffer.len() as u64) as usize;
        match read(&mut buffer[..wanted])? {
            0 => return Err(cut()),
            count => bytes -= count as u64,
        }
    }
    Ok(())
}

/// How much comes in how much time.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn new() -> Pace {
        Pace { since: Instant::now(), bytes: 0 }
    }

    fn count(&mut self, bytes: usize) -> Attempt<()> {
        let (least, time) = TRICKLE;
        self.bytes += bytes as u64;
        if self.bytes >= least {
            *self = Pace::new();
        } else if self.since.elapsed() > time {
            return Err(retry("the connection brings next to nothing"));
        }
        Ok(())
    }
}

fn cut() -> Failure {
    retry("the connection ended too early")
}

fn retry(message: &str) -> Failure {
    let error = Box::new(Error::new(Kind::DownloadFailed, "", message));
    Failure { error, transient: true, wait: None }
}

fn other_size(listed: u64, sent: u64) -> Failure {
    let message = format!("the Hub lists {listed} bytes, but has {sent}");
    Failure::from(Error::new(Kind::DownloadFailed, "", message))
}
