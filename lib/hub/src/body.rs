//! The body of a response, read from a server that may stall, trickle or close the connection
//! early.

use std::io::Read;
use std::time::{Duration, Instant};

use ureq::http::Response;
use ureq::{Body, BodyReader, ResponseExt};

use crate::client::Hub;
use crate::error::{Attempt, Failure};

/// Slowest rate that counts as progress: bytes per period. A slower connection fails like a stalled
/// one.
const MIN_RATE: (u64, Duration) = (32 << 10, Duration::from_secs(30));

/// Bytes that [`ResponseBody::skip`] reads at a time.
const BUFFER: u64 = 64 << 10;

/// Unread rest of a response's body.
pub struct ResponseBody<'a> {
    hub: &'a Hub,
    url: String,
    reader: BodyReader<'static>,
    period_start: Instant,
    period_bytes: u64,
}

impl<'a> ResponseBody<'a> {
    /// The body of `response`.
    pub fn new(hub: &'a Hub, response: Response<Body>) -> ResponseBody<'a> {
        let url = response.get_uri().to_string();
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        ResponseBody { hub, url, reader, period_start: Instant::now(), period_bytes: 0 }
    }

    /// Reads at least one byte into `buffer`; the end of the body is a transient failure.
    pub fn read(&mut self, buffer: &mut [u8]) -> Attempt<usize> {
        let broken = |e| self.hub.network_failure(ureq::Error::from(e), &self.url);
        let count = self.reader.read(buffer).map_err(broken)?;
        self.hub.check()?;
        if count == 0 {
            return Err(Failure::transient("the connection ended too early"));
        }
        self.check_rate(count)?;
        Ok(count)
    }

    /// Fills all of `buffer`.
    pub fn fill(&mut self, mut buffer: &mut [u8]) -> Attempt<()> {
        while !buffer.is_empty() {
            let count = self.read(buffer)?;
            buffer = &mut buffer[count..];
        }
        Ok(())
    }

    /// Reads and discards `bytes` bytes.
    pub fn skip(&mut self, mut bytes: u64) -> Attempt<()> {
        let mut buffer = vec![0; bytes.min(BUFFER) as usize];
        while bytes > 0 {
            let wanted = bytes.min(BUFFER) as usize;
            bytes -= self.read(&mut buffer[..wanted])? as u64;
        }
        Ok(())
    }

    fn check_rate(&mut self, bytes: usize) -> Attempt<()> {
        let (least, period) = MIN_RATE;
        self.period_bytes += bytes as u64;
        if self.period_bytes >= least {
            (self.period_start, self.period_bytes) = (Instant::now(), 0);
        } else if self.period_start.elapsed() > period {
            return Err(Failure::transient("the connection brings next to nothing"));
        }
        Ok(())
    }
}
