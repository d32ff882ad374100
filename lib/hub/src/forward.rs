//! Requests by plain HTTP through a proxy, which takes the whole URL in the first line (RFC 9112,
//! section 3.2.2). Many proxies allow a tunnel, which ureq would make, to port 443 only.

use std::mem;

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Connector that makes the first line of each request name the whole URL.
#[derive(Debug)]
pub struct Forward;

/// Connection to a proxy.
#[derive(Debug)]
pub struct Forwarded<T> {
    inner: T,
    /// Scheme and authority of the URLs.
    origin: String,
    /// True if the next output begins a request.
    at_request: bool,
}

impl<T: Transport> Connector<T> for Forward {
    type Out = Forwarded<T>;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<T>,
    ) -> Result<Option<Forwarded<T>>, Error> {
        let host = details.uri.authority().map(|at| at.as_str()).unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let origin = format!("http://{host}");
        Ok(chained.map(|inner| Forwarded { inner, origin, at_request: true }))
    }
}

impl<T: Transport> Transport for Forwarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let amount = match mem::take(&mut self.at_request) {
            true => insert(self.inner.buffers().output(), amount, self.origin.as_bytes())?,
            false => amount,
        };
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.at_request = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// Inserts `origin` after the method of the request that is the first `amount` bytes of `output`;
/// returns its new length.
fn insert(output: &mut [u8], amount: usize, origin: &[u8]) -> Result<usize, Error> {
    let method = output[..amount].iter().position(|byte| *byte == b' ');
    let (Some(method), true) = (method, amount + origin.len() <= output.len()) else {
        return Err(Error::LargeResponseHeader(amount, output.len()));
    };
    output.copy_within(method + 1..amount, method + 1 + origin.len());
    output[method + 1..][..origin.len()].copy_from_slice(origin);
    Ok(amount + origin.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    #[test]
    fn the_first_line_names_the_whole_url() {
        let mut output = *b"GET /a b\r\n..........";
        let length = insert(&mut output, 10, b"http://x:1").unwrap();
        assert_eq!(&output[..length], b"GET http://x:1/a b\r\n");
        assert!(insert(&mut output, 20, b"h").is_err());
    }
}
