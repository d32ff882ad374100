//! Digests of file contents: SHA-256, which names files in Git LFS, and SHA-1, which names Git blobs.
//!
//! The crates `sha1` and `sha2` detect at run time whether the processor has SHA instructions, which
//! most processors since 2019 have; with them the speed is that of OpenSSL, 1.8 GB/s per core.
//! Without them OpenSSL is faster, 0.68 to 0.46 GB/s per core, which does not justify a C library.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::regular_file;

/// Bytes read at a time: few system calls, and the buffer stays in the processor's cache.
const CHUNK: usize = 256 << 10;

/// A digest of file contents; its text form is hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// The SHA-256 of the content, which Git LFS uses.
    Sha256([u8; 32]),
    /// The SHA-1 of `blob SIZE NUL` and the content, which Git uses.
    Git([u8; 20]),
}

impl Digest {
    /// A hasher that computes the same kind of digest for content of `size` bytes.
    pub fn hasher(&self, size: u64) -> Hasher {
        match self {
            Digest::Sha256(_) => Hasher::sha256(),
            Digest::Git(_) => Hasher::git(size),
        }
    }
}

/// Computes a digest of content that arrives in parts.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// A hasher for SHA-256.
    pub fn sha256() -> Hasher {
        Hasher(State::Sha256(Sha256::new()))
    }

    /// A hasher for the id of a Git blob of `size` bytes.
    pub fn git(size: u64) -> Hasher {
        Hasher(State::Git(Sha1::new().chain_update(format!("blob {size}\0"))))
    }

    /// Adds content.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(hash) => hash.update(bytes),
            State::Git(hash) => hash.update(bytes),
        }
    }

    /// The digest of the added content.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            State::Git(hash) => Digest::Git(hash.finalize().into()),
        }
    }
}

/// Hashes the file `path`. `read` is called with the number of bytes after each read; if it returns
/// an error, the work stops.
pub fn file(
    path: &Path,
    mut hasher: Hasher,
    mut read: impl FnMut(u64) -> Result<()>,
) -> Result<Digest> {
    let at = |e| Error::io(path, e);
    let mut file = regular_file::open(path).map_err(at)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                read(count as u64)?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(at(e)),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Digest::Sha256(bytes) => bytes,
            Digest::Git(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The error for text that is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDigest;

/// Parses 64 lower-case hexadecimal digits as SHA-256, and 40 as the id of a Git blob.
impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> std::result::Result<Digest, NoDigest> {
        match text.len() {
            64 => bytes(text).map(Digest::Sha256),
            40 => bytes(text).map(Digest::Git),
            _ => None,
        }
        .ok_or(NoDigest)
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_that_git_and_sha256sum_print() {
        let of = |mut hasher: Hasher| {
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            hasher.finish().to_string()
        };
        // printf 'hello\n' | sha256sum; printf 'hello\n' | git hash-object --stdin
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(of(Hasher::sha256()), sha256);
        assert_eq!(of(Hasher::git(6)), git);
        for text in [sha256, git] {
            let digest: Digest = text.parse().unwrap();
            assert_eq!((of(digest.hasher(6)), digest.to_string()), (text.into(), text.into()));
        }
        let upper = git.to_uppercase();
        for text in ["", "x", &git[1..], &upper, &git.replacen("ce", "zz", 1)] {
            assert_eq!(text.parse::<Digest>(), Err(NoDigest), "{text}");
        }
    }
}
