//! Where bytes of audio come from, as a source of symphonia whose first bytes can be looked at, and
//! replaced, before they are read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use mlxk_core::Result;
use symphonia::core::io::MediaSource;

use super::error::{failed, invalid};

/// The most bytes of a pipe that are kept, where a file has to be sought in.
const MAX_PIPED: usize = 256 << 20;

/// Bytes of audio.
pub enum Source {
    /// A file; one that cannot be sought in, such as a FIFO, is read as a pipe.
    File(File),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// A pipe, which is read once from its start to its end.
    Pipe(Box<dyn Read + Send + Sync>),
}

/// Bytes of audio with a head in memory, which overlays the bytes of the source.
pub(super) struct Input {
    /// Bytes from the start, those of the source unless they were changed.
    pub head: Vec<u8>,
    source: Source,
    /// Length of the source; unknown for a pipe.
    length: Option<u64>,
    /// Whether readers have to do without seeking, so that they read what there is of a cut file.
    pub sequential: bool,
    /// Where the audio ends, if that is before the end of the source.
    limit: u64,
    /// Place of the next byte to be read.
    place: u64,
    /// Place of the source's own next byte.
    read: u64,
}

impl Input {
    /// The bytes of `source`.
    ///
    /// Fails if the size of a file cannot be found.
    pub fn new(source: Source) -> io::Result<Self> {
        let (source, length) = match source {
            Source::File(file) => {
                let metadata = file.metadata()?;
                match metadata.is_file() {
                    true => (Source::File(file), Some(metadata.len())),
                    false => (Source::Pipe(Box::new(file)), None),
                }
            }
            Source::Bytes(bytes) => {
                let length = bytes.len() as u64;
                (Source::Bytes(bytes), Some(length))
            }
            pipe @ Source::Pipe(_) => (pipe, None),
        };
        let mut input = Input {
            head: Vec::new(),
            source,
            length,
            sequential: false,
            limit: u64::MAX,
            place: 0,
            read: 0,
        };
        if let Source::File(file) = &mut input.source {
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(input)
    }

    /// Reads the head up to `size` bytes, or to the end of the source if that comes first. True if
    /// the head is that long.
    pub fn fill(&mut self, size: usize) -> io::Result<bool> {
        let missing = size.saturating_sub(self.head.len()) as u64;
        let before = self.head.len();
        let mut head = std::mem::take(&mut self.head);
        let read = match &mut self.source {
            Source::File(file) => file.take(missing).read_to_end(&mut head),
            Source::Pipe(pipe) => pipe.take(missing).read_to_end(&mut head),
            Source::Bytes(bytes) => {
                head.extend_from_slice(&bytes[before..bytes.len().min(before.max(size))]);
                Ok(0)
            }
        };
        self.head = head;
        self.read += (self.head.len() - before) as u64;
        read.map(|_| self.head.len() >= size)
    }

    /// Length of the source, if it is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Ends the audio at the byte `end`.
    pub fn limit(&mut self, end: u64) {
        self.limit = end;
    }

    /// Reads a pipe to its end, so that it can be sought in.
    ///
    /// Fails if it cannot be read, or if it is longer than 256 MiB.
    pub fn keep(&mut self) -> Result<()> {
        if self.length.is_some() {
            return Ok(());
        }
        if self.fill(MAX_PIPED + 1).map_err(failed)? {
            let message = format!("audio needs more than {} MiB of a pipe", MAX_PIPED >> 20);
            return Err(invalid(message)
                .hint("give the file by its name; an M4A may also have its index first"));
        }
        self.length = Some(self.head.len() as u64);
        self.source = Source::Bytes(Arc::default());
        Ok(())
    }

    /// Reads bytes of the source from `self.place`, which is behind the head.
    fn read_source(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Readers follow lengths in damaged files to places where the system does not seek.
        if self.length.is_some_and(|length| self.place >= length) {
            return Ok(0);
        }
        match &mut self.source {
            Source::File(file) => {
                if self.read != self.place {
                    file.seek(SeekFrom::Start(self.place))?;
                    self.read = self.place;
                }
                file.read(buffer)
            }
            Source::Pipe(pipe) => pipe.read(buffer),
            Source::Bytes(bytes) => {
                let rest = usize::try_from(self.place).ok().and_then(|at| bytes.get(at..));
                rest.unwrap_or_default().read(buffer)
            }
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.limit.saturating_sub(self.place)).unwrap_or(usize::MAX);
        let size = buffer.len().min(left);
        let buffer = &mut buffer[..size];
        let head = usize::try_from(self.place).ok().and_then(|at| self.head.get(at..));
        let read = match head {
            Some(mut head) if !head.is_empty() => head.read(buffer)?,
            _ => {
                let read = self.read_source(buffer)?;
                self.read += read as u64;
                read
            }
        };
        self.place += read as u64;
        Ok(read)
    }
}

impl Seek for Input {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let end = self.byte_len().ok_or_else(|| io::Error::other("a pipe cannot be sought in"))?;
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(offset) => end.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.place.checked_add_signed(offset),
        };
        self.place = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.place)
    }
}

impl MediaSource for Input {
    fn is_seekable(&self) -> bool {
        self.length.is_some() && !self.sequential
    }

    fn byte_len(&self) -> Option<u64> {
        self.length.filter(|_| !self.sequential).map(|length| length.min(self.limit))
    }
}
