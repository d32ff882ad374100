//! Partial download of a file, and the journal that records which bytes of it are present.
//!
//! A file is fetched in pieces, each from its start. The journal holds the number of bytes present
//! for every piece and is updated after the bytes are written, so that a run that dies at any
//! moment leaves a journal that claims no byte too many. After a power loss it may claim bytes that
//! never reached the disk; the digest detects that, because it is computed from what is read back
//! before the file gets its name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxk_core::digest::{Digest, Hasher};
use mlxk_core::store::lock::is_current;
use mlxk_core::{Error, Kind, Result, regular_file};

/// Size of a piece in bytes: worth a request, and small enough to spread a file over connections.
pub const PIECE: u64 = 16 << 20;

/// Bytes read at a time for hashing: few system calls, and a buffer that fits the processor's
/// cache.
const READ_SIZE: usize = 64 << 10;

/// Bytes written at a time. For larger writes the kernel takes larger blocks of memory; on a
/// virtual machine these may have been returned to the host, which doubles the time of the write.
const WRITE_SIZE: usize = 64 << 10;

/// Unsynced bytes from which on [`Partial::sync_early`] starts a sync.
const SYNC_THRESHOLD: u64 = 64 << 20;

/// Open partial download with its journal.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    journal_path: PathBuf,
    file: File,
    journal: File,
    header_len: u64,
    size: u64,
    /// Bytes present of each piece.
    done: Vec<AtomicU64>,
    /// Lock around writes: the kernel serialises writes to one file, and waiting threads would
    /// spin.
    write_lock: Mutex<()>,
    /// Bytes that were present at the last sync.
    synced: Mutex<u64>,
}

impl Partial {
    /// Opens the partial download at `path` of a file with `digest`, or creates an empty one.
    pub fn open(path: &Path, size: u64, digest: Digest) -> Result<Partial> {
        let journal_path = journal_path(path);
        let header = header(size, digest);
        let done = match resume(path, &journal_path, &header, size) {
            Some(done) => done,
            None => create(path, &journal_path, &header, size)?,
        };
        Ok(Partial {
            file: open(path)?,
            journal: open(&journal_path)?,
            path: path.to_owned(),
            journal_path,
            header_len: header.len() as u64,
            size,
            done: done.into_iter().map(AtomicU64::new).collect(),
            write_lock: Mutex::default(),
            synced: Mutex::default(),
        })
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.done.len()
    }

    /// Size of the whole file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Offset and length of piece `i` in bytes.
    pub fn span(&self, i: usize) -> (u64, u64) {
        let start = i as u64 * PIECE;
        (start, PIECE.min(self.size - start))
    }

    /// Bytes present of piece `i`.
    pub fn done(&self, i: usize) -> u64 {
        self.done[i].load(Ordering::Acquire)
    }

    /// Bytes present of the whole file.
    pub fn present(&self) -> u64 {
        (0..self.pieces()).map(|i| self.done(i)).sum()
    }

    /// Appends `bytes` to piece `i`; only one thread at a time may append to a piece.
    pub fn append(&self, i: usize, bytes: &[u8]) -> Result<()> {
        let done = self.done(i);
        let mut at = self.span(i).0 + done;
        let guard = self.write_lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for bytes in bytes.chunks(WRITE_SIZE) {
            self.file.write_all_at(bytes, at).map_err(|e| Error::io(&self.path, e))?;
            at += bytes.len() as u64;
        }
        drop(guard);
        self.record(i, done + bytes.len() as u64)
    }

    /// Marks all pieces as empty, after the content failed verification.
    pub fn reset(&self) -> Result<()> {
        (0..self.pieces()).try_for_each(|i| self.record(i, 0))
    }

    /// Extends the hash `prefix` over all contiguous bytes that are present behind it.
    pub fn hash_prefix(&self, prefix: &mut PrefixHasher) -> Result<()> {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            let end = self.contiguous_end(prefix.len);
            if end == prefix.len {
                return Ok(());
            }
            while prefix.len < end {
                let count = (end - prefix.len).min(READ_SIZE as u64) as usize;
                let bytes = &mut buffer[..count];
                self.file.read_exact_at(bytes, prefix.len).map_err(|e| Error::io(&self.path, e))?;
                prefix.hasher.update(bytes);
                prefix.len += count as u64;
            }
        }
    }

    /// Syncs written bytes to disk if there are many and no other thread is syncing, so that little
    /// is left to sync after the last byte.
    pub fn sync_early(&self) -> Result<()> {
        let Ok(mut synced) = self.synced.try_lock() else {
            return Ok(());
        };
        let present = self.present();
        if present.saturating_sub(*synced) >= SYNC_THRESHOLD {
            self.sync()?;
            *synced = present;
        }
        Ok(())
    }

    /// Syncs all written bytes to disk.
    ///
    /// curl and huggingface_hub do not sync. Without it, a renamed file may have its name and size
    /// but zeros as content after a power loss, and would look complete.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, e))
    }

    /// Renames the complete and synced file to `destination`, replacing what is there.
    ///
    /// # Errors
    /// If another program has removed or replaced the partial file meanwhile.
    pub fn publish(&self, destination: &Path) -> Result<()> {
        if !is_current(&self.file, &self.path).map_err(|e| Error::io(&self.path, e))? {
            let message = "another program has removed it while it was fetched";
            let path = self.path.display().to_string();
            return Err(Error::new(Kind::DownloadFailed, path, message).hint("try again"));
        }
        fs::rename(&self.path, destination).map_err(|e| Error::io(destination, e))?;
        remove(&self.journal_path)
    }

    /// End of the contiguous bytes that are present from `at` on.
    fn contiguous_end(&self, at: u64) -> u64 {
        for i in (at / PIECE) as usize..self.pieces() {
            let (start, length) = self.span(i);
            let done = self.done(i);
            if done < length {
                return start + done;
            }
        }
        self.size
    }

    fn record(&self, i: usize, done: u64) -> Result<()> {
        let at = self.header_len + 8 * i as u64;
        self.journal
            .write_all_at(&done.to_le_bytes(), at)
            .map_err(|e| Error::io(&self.journal_path, e))?;
        self.done[i].store(done, Ordering::Release);
        Ok(())
    }
}

/// Running hash of the contiguous start of a partial download.
#[derive(Debug)]
pub struct PrefixHasher {
    hasher: Hasher,
    len: u64,
}

impl PrefixHasher {
    /// Empty hash of the kind of `digest`, for content of `size` bytes.
    pub fn new(digest: Digest, size: u64) -> PrefixHasher {
        PrefixHasher { hasher: digest.hasher(size), len: 0 }
    }

    /// Digest of the hashed bytes.
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

/// Bytes that [`Partial::open`] would find present for the file with `digest` at `path`.
pub fn present(path: &Path, size: u64, digest: Digest) -> u64 {
    let done = resume(path, &journal_path(path), &header(size, digest), size);
    done.map_or(0, |done| done.iter().sum())
}

/// Removes the partial download at `path` and its journal, if they exist.
pub fn clear(path: &Path) -> Result<()> {
    remove(path)?;
    remove(&journal_path(path))
}

/// Path of the journal of `X.incomplete`: `X-journal.incomplete`, which has the ending that
/// clean-up tools look for.
fn journal_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}-journal.incomplete", name.trim_end_matches(".incomplete")))
}

/// Header of a journal, which identifies the file; after it come the bytes present of each piece,
/// as u64.
fn header(size: u64, digest: Digest) -> Vec<u8> {
    format!("mlxk journal 1\n{digest}\n{size} bytes, {PIECE} each\n").into_bytes()
}

/// Number of pieces of a file of `size` bytes.
fn piece_count(size: u64) -> usize {
    size.div_ceil(PIECE) as usize
}

/// Bytes present of each piece according to the journal. Returns `None` if the journal is damaged
/// or belongs to another file, or the partial file has another size.
fn resume(path: &Path, journal: &Path, header: &[u8], size: u64) -> Option<Vec<u64>> {
    let limit = (header.len() + 8 * piece_count(size)) as u64;
    let text = regular_file::read_small(journal, limit).ok()?;
    let numbers = text.strip_prefix(header).filter(|rest| rest.len() == 8 * piece_count(size))?;
    let partial = fs::symlink_metadata(path).ok()?;
    if !partial.is_file() || partial.len() != size {
        return None;
    }
    let done = numbers.chunks_exact(8).map(|bytes| bytes.try_into().map(u64::from_le_bytes));
    let done: Vec<u64> = done.collect::<std::result::Result<_, _>>().ok()?;
    let length = |i: usize| PIECE.min(size - i as u64 * PIECE);
    done.iter().enumerate().all(|(i, done)| *done <= length(i)).then_some(done)
}

/// Creates an empty partial file, and its journal after it.
fn create(path: &Path, journal: &Path, header: &[u8], size: u64) -> Result<Vec<u64>> {
    clear(path)?;
    let file = File::options().write(true).create_new(true).open(path);
    file.and_then(|file| file.set_len(size)).map_err(|e| Error::io(path, e))?;
    let pieces = piece_count(size);
    let text = [header, &vec![0; 8 * pieces]].concat();
    fs::write(journal, text).map_err(|e| Error::io(journal, e))?;
    Ok(vec![0; pieces])
}

fn open(path: &Path) -> Result<File> {
    File::options().read(true).write(true).open(path).map_err(|e| Error::io(path, e))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    fn digest(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn a_partial_download_resumes_and_becomes_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, place) = (directory.path().join("x.incomplete"), directory.path().join("x"));
        let content: Vec<u8> = (0..PIECE + 1000).map(|i| (i % 251) as u8).collect();
        let (size, digest) = (content.len() as u64, digest(&content));
        let partial = Partial::open(&path, size, digest).unwrap();
        partial.append(1, &content[PIECE as usize..]).unwrap();
        partial.append(0, &content[..500]).unwrap();
        drop(partial);
        assert_eq!(present(&path, size, digest), 1500);
        let partial = Partial::open(&path, size, digest).unwrap();
        let mut prefix = PrefixHasher::new(digest, size);
        partial.hash_prefix(&mut prefix).unwrap();
        assert_eq!((partial.done(0), partial.done(1), prefix.len), (500, 1000, 500));
        partial.append(0, &content[500..PIECE as usize]).unwrap();
        partial.hash_prefix(&mut prefix).unwrap();
        assert_eq!(prefix.finish(), digest);
        partial.sync().unwrap();
        partial.publish(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), content);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_partial_download_of_another_file_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.incomplete");
        let digest = digest(b"x");
        let fill = || {
            let partial = Partial::open(&path, 10, digest).unwrap();
            partial.append(0, b"12345").unwrap();
            assert_eq!(present(&path, 10, digest), 5);
            partial
        };
        fill();
        assert_eq!(present(&path, 11, digest), 0, "another size");
        assert_eq!(present(&path, 10, Digest::Git([0; 20])), 0, "another file");
        fs::write(&path, "123").unwrap();
        assert_eq!(Partial::open(&path, 10, digest).unwrap().present(), 0, "a truncated file");
        fill();
        let journal = journal_path(&path);
        fs::write(&journal, &fs::read(&journal).unwrap()[..20]).unwrap();
        assert_eq!(Partial::open(&path, 10, digest).unwrap().present(), 0, "a torn journal");
        let partial = fill();
        partial.reset().unwrap();
        assert_eq!(present(&path, 10, digest), 0, "after a reset");
    }

    #[test]
    fn a_replaced_partial_download_is_not_published() {
        let directory = tempfile::tempdir().unwrap();
        let (path, place) = (directory.path().join("x.incomplete"), directory.path().join("x"));
        let whole = Partial::open(&path, 1, digest(b"x")).unwrap();
        whole.append(0, b"x").unwrap();
        clear(&path).unwrap();
        Partial::open(&path, 1, digest(b"x")).unwrap();
        assert!(whole.publish(&place).is_err() && !place.exists());
    }

    #[test]
    fn an_empty_file_is_complete_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.incomplete");
        let partial = Partial::open(&path, 0, digest(b"")).unwrap();
        let mut prefix = PrefixHasher::new(digest(b""), 0);
        partial.hash_prefix(&mut prefix).unwrap();
        assert_eq!(prefix.finish(), digest(b""));
        partial.publish(&directory.path().join("x")).unwrap();
        assert_eq!(fs::read(directory.path().join("x")).unwrap(), b"");
    }
}
