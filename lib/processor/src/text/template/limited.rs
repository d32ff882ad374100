//! Text of limited size.

use std::io;
use std::sync::Arc;

use crate::cancel::Cancel;

/// Text to which no more is written than it has room for, in bytes, and nothing once that is
/// cancelled.
pub struct Limited {
    text: Vec<u8>,
    room: usize,
    cancel: Arc<Cancel>,
}

impl Limited {
    /// Empty text with `room` bytes.
    pub fn new(room: usize, cancel: &Arc<Cancel>) -> Limited {
        Limited { text: Vec::new(), room, cancel: Arc::clone(cancel) }
    }

    /// Bytes that were written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.text
    }
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_requested() || self.room - self.text.len() < bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
