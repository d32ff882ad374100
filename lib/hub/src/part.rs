//! A file on its way: the part of it that is here, and the journal that says which part that is.
//!
//! The file is fetched in pieces, each from its beginning on. The journal holds for every piece how
//! many bytes of it are here; it is written after the bytes, a few at a time, so that a run that
//! dies at any moment leaves a journal that is true and misses little. Were it not (a machine that
//! loses power), the digest tells, which is computed from what is read back before the file gets
//! its name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxk_core::digest::{Digest, Hasher};
use mlxk_core::store::lock::is_current;
use mlxk_core::{Error, Kind, Result};

/// Bytes of a piece: enough to be worth a request, little enough to share among connections.
pub const PIECE: u64 = 16 << 20;

/// Bytes that are read back at once to be hashed: few calls, and little enough for the cache.
const BUFFER: usize = 64 << 10;

/// Bytes that are written at once. For more the system takes larger blocks of memory; such as a
/// virtual machine had given back to its host, which makes them cost twice the time of the write.
const WRITE: usize = 64 << 10;

/// The disk is given work while more bytes come, whenever it lacks so many.
const BEHIND: u64 = 64 << 20;

/// The file under construction.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    journal_path: PathBuf,
    file: File,
    journal: File,
    head: u64,
    size: u64,
    done: Vec<AtomicU64>,
    /// The system lets one thread at a time write to a file, and others spin until it does.
    turn: Mutex<()>,
    /// How many bytes the disk has for certain.
    synced: Mutex<u64>,
}

impl Part {
    /// Goes on with the part that lies at `path` of a file known by `digest`, or begins it.
    pub fn open(path: &Path, size: u64, digest: Digest) -> Result<Part> {
        let journal_path = journal_of(path);
        let head = format!("mlxk journal 1\n{digest}\n{size} bytes, {PIECE} each\n").into_bytes();
        let pieces = size.div_ceil(PIECE) as usize;
        let done = match resume(path, &journal_path, &head, size, pieces) {
            Some(done) => done,
            None => begin(path, &journal_path, &head, size, pieces)?,
        };
        Ok(Part {
            file: open(path)?,
            journal: open(&journal_path)?,
            path: path.to_owned(),
            journal_path,
            head: head.len() as u64,
            size,
            done: done.into_iter().map(AtomicU64::new).collect(),
            turn: Mutex::default(),
            synced: Mutex::default(),
        })
    }

    /// The number of pieces.
    pub fn pieces(&self) -> usize {
        self.done.len()
    }

    /// The bytes of all of it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where piece `i` begins, and the bytes of it.
    pub fn span(&self, i: usize) -> (u64, u64) {
        let start = i as u64 * PIECE;
        (start, PIECE.min(self.size - start))
    }

    /// How many bytes of piece `i` are here.
    pub fn done(&self, i: usize) -> u64 {
        self.done[i].load(Ordering::Acquire)
    }

    /// How many bytes are here.
    pub fn present(&self) -> u64 {
        (0..self.pieces()).map(|i| self.done(i)).sum()
    }

    /// Adds bytes to piece `i`, which only one thread at a time may do.
    pub fn append(&self, i: usize, bytes: &[u8]) -> Result<()> {
        let done = self.done(i);
        let mut at = self.span(i).0 + done;
        let turn = self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for bytes in bytes.chunks(WRITE) {
            self.file.write_all_at(bytes, at).map_err(|e| Error::io(&self.path, e))?;
            at += bytes.len() as u64;
        }
        drop(turn);
        self.note(i, done + bytes.len() as u64)
    }

    /// Forgets what is here: it turned out to be worthless.
    pub fn reset(&self) -> Result<()> {
        (0..self.pieces()).try_for_each(|i| self.note(i, 0))
    }

    /// Hashes what is here from where `follower` stopped, as far as there is no gap.
    pub fn follow(&self, follower: &mut Follower) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let end = self.frontier(follower.at);
            if end == follower.at {
                return Ok(());
            }
            while follower.at < end {
                let count = (end - follower.at).min(BUFFER as u64) as usize;
                let bytes = &mut buffer[..count];
                self.file
                    .read_exact_at(bytes, follower.at)
                    .map_err(|e| Error::io(&self.path, e))?;
                follower.hasher.update(bytes);
                follower.at += count as u64;
            }
        }
    }

    /// Waits until the disk has what is here, if that is much and nobody waits for it already:
    /// so there is little left to wait for when the last byte has come.
    pub fn sync_early(&self) -> Result<()> {
        let Ok(mut synced) = self.synced.try_lock() else {
            return Ok(());
        };
        let present = self.present();
        if present.saturating_sub(*synced) >= BEHIND {
            self.sync()?;
            *synced = present;
        }
        Ok(())
    }

    /// Waits until the disk has what is here.
    ///
    /// curl and huggingface_hub do without. But after a loss of power a file that was renamed and
    /// not synced may have its name and its size, and zeros for content: it would look whole.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, e))
    }

    /// Gives the file its name `place`, which whatever had it loses. It must be whole, and synced.
    ///
    /// Where somebody has removed it meanwhile, what may lie there now is another one's part.
    pub fn publish(&self, place: &Path) -> Result<()> {
        if !is_current(&self.file, &self.path).map_err(|e| Error::io(&self.path, e))? {
            let message = "another program has removed it while it was fetched";
            let path = self.path.display().to_string();
            return Err(Error::new(Kind::DownloadFailed, path, message).hint("try again"));
        }
        fs::rename(&self.path, place).map_err(|e| Error::io(place, e))?;
        remove(&self.journal_path)
    }

    /// How far all bytes from `at` on are here.
    fn frontier(&self, at: u64) -> u64 {
        for i in (at / PIECE) as usize..self.pieces() {
            let (start, length) = self.span(i);
            let done = self.done(i);
            if done < length {
                return start + done;
            }
        }
        self.size
    }

    fn note(&self, i: usize, done: u64) -> Result<()> {
        let at = self.head + 8 * i as u64;
        self.journal
            .write_all_at(&done.to_le_bytes(), at)
            .map_err(|e| Error::io(&self.journal_path, e))?;
        self.done[i].store(done, Ordering::Release);
        Ok(())
    }
}

/// A hash on its way, behind the bytes that come.
#[derive(Debug)]
pub struct Follower {
    hasher: Hasher,
    at: u64,
}

impl Follower {
    /// One that has hashed nothing yet, for content of `size` bytes known by `digest`.
    pub fn new(digest: Digest, size: u64) -> Follower {
        Follower { hasher: digest.hasher(size), at: 0 }
    }

    /// The digest of what was hashed.
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

/// How many bytes of the file known by `digest` a part at `path` would begin with.
pub fn present(path: &Path, size: u64, digest: Digest) -> u64 {
    let head = format!("mlxk journal 1\n{digest}\n{size} bytes, {PIECE} each\n").into_bytes();
    let pieces = size.div_ceil(PIECE) as usize;
    let done = resume(path, &journal_of(path), &head, size, pieces);
    done.map_or(0, |done| done.iter().sum())
}

/// Removes what is left of a part at `path` of a file that is whole by now.
pub fn clear(path: &Path) -> Result<()> {
    remove(path)?;
    remove(&journal_of(path))
}

/// `X.incomplete` has its journal in `X-journal.incomplete`: whoever cleans up knows it by its end.
fn journal_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{}-journal.incomplete", name.trim_end_matches(".incomplete")))
}

/// What the journal says; none unless it is one of this very file and true to it.
fn resume(path: &Path, journal: &Path, head: &[u8], size: u64, pieces: usize) -> Option<Vec<u64>> {
    let text = fs::read(journal).ok()?;
    let numbers = text.strip_prefix(head).filter(|rest| rest.len() == 8 * pieces)?;
    let part = fs::symlink_metadata(path).ok()?;
    if !part.is_file() || part.len() != size {
        return None;
    }
    let done = numbers.chunks_exact(8).map(|bytes| bytes.try_into().map(u64::from_le_bytes));
    let done: Vec<u64> = done.collect::<std::result::Result<_, _>>().ok()?;
    let length = |i: usize| PIECE.min(size - i as u64 * PIECE);
    done.iter().enumerate().all(|(i, done)| *done <= length(i)).then_some(done)
}

/// Makes an empty part. While it is not one yet, it has no journal.
fn begin(path: &Path, journal: &Path, head: &[u8], size: u64, pieces: usize) -> Result<Vec<u64>> {
    clear(path)?;
    let file = File::options().write(true).create_new(true).open(path);
    file.and_then(|file| file.set_len(size)).map_err(|e| Error::io(path, e))?;
    let text = [head, &vec![0; 8 * pieces]].concat();
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
    fn a_part_goes_on_where_it_stopped_and_becomes_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, place) = (directory.path().join("x.incomplete"), directory.path().join("x"));
        let content: Vec<u8> = (0..PIECE + 1000).map(|i| (i % 251) as u8).collect();
        let (size, digest) = (content.len() as u64, digest(&content));
        let part = Part::open(&path, size, digest).unwrap();
        part.append(1, &content[PIECE as usize..]).unwrap();
        part.append(0, &content[..500]).unwrap();
        drop(part);
        assert_eq!(present(&path, size, digest), 1500);
        let part = Part::open(&path, size, digest).unwrap();
        let mut follower = Follower::new(digest, size);
        part.follow(&mut follower).unwrap();
        assert_eq!((part.done(0), part.done(1), follower.at), (500, 1000, 500));
        part.append(0, &content[500..PIECE as usize]).unwrap();
        part.follow(&mut follower).unwrap();
        assert_eq!(follower.finish(), digest);
        part.sync().unwrap();
        part.publish(&place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), content);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_part_of_something_else_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.incomplete");
        let digest = digest(b"x");
        let fill = || {
            let part = Part::open(&path, 10, digest).unwrap();
            part.append(0, b"12345").unwrap();
            assert_eq!(present(&path, 10, digest), 5);
            part
        };
        fill();
        assert_eq!(present(&path, 11, digest), 0, "another size");
        assert_eq!(present(&path, 10, Digest::Git([0; 20])), 0, "another file");
        fs::write(&path, "123").unwrap();
        assert_eq!(Part::open(&path, 10, digest).unwrap().present(), 0, "a truncated part");
        fill();
        let journal = journal_of(&path);
        fs::write(&journal, &fs::read(&journal).unwrap()[..20]).unwrap();
        assert_eq!(Part::open(&path, 10, digest).unwrap().present(), 0, "a torn journal");
        let part = fill();
        part.reset().unwrap();
        assert_eq!(present(&path, 10, digest), 0, "worthless content");
    }

    #[test]
    fn another_ones_part_is_not_published() {
        let directory = tempfile::tempdir().unwrap();
        let (path, place) = (directory.path().join("x.incomplete"), directory.path().join("x"));
        let whole = Part::open(&path, 1, digest(b"x")).unwrap();
        whole.append(0, b"x").unwrap();
        clear(&path).unwrap();
        Part::open(&path, 1, digest(b"x")).unwrap();
        assert!(whole.publish(&place).is_err() && !place.exists());
    }

    #[test]
    fn an_empty_file_is_whole_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.incomplete");
        let part = Part::open(&path, 0, digest(b"")).unwrap();
        let mut follower = Follower::new(digest(b""), 0);
        part.follow(&mut follower).unwrap();
        assert_eq!(follower.finish(), digest(b""));
        part.publish(&directory.path().join("x")).unwrap();
        assert_eq!(fs::read(directory.path().join("x")).unwrap(), b"");
    }
}
