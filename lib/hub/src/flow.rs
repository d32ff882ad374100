//! The bytes of an answer as they come, from a server that may fall silent, trickle or hang up.

use std::io::Read;
use std::time::{Duration, Instant};

use mlxk_core::{Error, Kind};
use ureq::http::Response;
use ureq::{Body, BodyReader, ResponseExt};

use crate::client::Hub;
use crate::refusal::{Attempt, Failure};

/// A connection that brings fewer bytes than these in that time is as good as a silent one.
const TRICKLE: (u64, Duration) = (32 << 10, Duration::from_secs(30));

/// Bytes that are thrown away at once.
const BUFFER: u64 = 64 << 10;

/// The rest of an answer's body.
pub struct Flow<'a> {
    hub: &'a Hub,
    url: String,
    body: BodyReader<'static>,
    since: Instant,
    bytes: u64,
}

impl<'a> Flow<'a> {
    /// What `response` brings.
    pub fn new(hub: &'a Hub, response: Response<Body>) -> Flow<'a> {
        let url = response.get_uri().to_string();
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Flow { hub, url, body, since: Instant::now(), bytes: 0 }
    }

    /// Reads some bytes, at least one.
    pub fn read(&mut self, buffer: &mut [u8]) -> Attempt<usize> {
        let lost = |e| self.hub.lost(ureq::Error::from(e), &self.url);
        let count = self.body.read(buffer).map_err(lost)?;
        self.hub.check()?;
        if count == 0 {
            return Err(retry("the connection ended too early"));
        }
        self.pace(count)?;
        Ok(count)
    }

    /// Reads as many bytes as there is room for.
    pub fn fill(&mut self, mut buffer: &mut [u8]) -> Attempt<()> {
        while !buffer.is_empty() {
            let count = self.read(buffer)?;
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    /// Throws away so many bytes.
    pub fn skip(&mut self, mut bytes: u64) -> Attempt<()> {
        let mut buffer = vec![0; bytes.min(BUFFER) as usize];
        while bytes > 0 {
            let wanted = bytes.min(BUFFER) as usize;
            bytes -= self.read(&mut buffer[..wanted])? as u64;
        }
        Ok(())
    }

    fn pace(&mut self, bytes: usize) -> Attempt<()> {
        let (least, time) = TRICKLE;
        self.bytes += bytes as u64;
        if self.bytes >= least {
            (self.since, self.bytes) = (Instant::now(), 0);
        } else if self.since.elapsed() > time {
            return Err(retry("the connection brings next to nothing"));
        }
        Ok(())
    }
}

/// A failure that another attempt may not meet.
pub fn retry(message: &str) -> Failure {
    let error = Box::new(Error::new(Kind::DownloadFailed, "", message));
    Failure { error, transient: true, wait: None }
}
