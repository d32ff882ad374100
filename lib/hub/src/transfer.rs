//! Parallel download of several files in pieces, shared by `pull` and `clone`.
//!
//! Worker threads take pieces of open files, or open the next file. The thread that completes the
//! last piece of a file verifies it and renames it into place, so that a final name never holds
//! other content than the Hub lists.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use mlxk_core::digest::Digest;
use mlxk_core::store::disk_space;
use mlxk_core::store::lock::{self, Lock, MODE};
use mlxk_core::{Error, Kind, Result};

use crate::backoff::{Backoff, interrupted, sleep};
use crate::client::Hub;
use crate::error::Failure;
use crate::listing::RemoteFile;
use crate::partial::{self, Partial, PrefixHasher};
use crate::stream::Source;
use crate::xet::Storage;
use mlxk_core::progress::{Listener, Progress};

/// Number of parallel connections; more do not increase bandwidth, and servers may refuse them.
const CONNECTIONS: usize = 8;

/// Files open at a time while others wait; threads that write to the same file block each other.
const OPEN_FILES: usize = 2;

/// Downloads of a file before giving up on content that fails verification.
const MAX_DOWNLOADS: usize = 2;

/// File to download.
#[derive(Debug)]
pub struct Job<'a> {
    /// Model id, for error messages.
    pub model: &'a str,
    /// Path, size and digests that the Hub lists.
    pub file: &'a RemoteFile,
    /// Download URL.
    pub url: String,
    /// Path of the partial download, `*.incomplete`.
    pub partial: PathBuf,
    /// Path of the complete file.
    pub destination: PathBuf,
    /// Path of the lock file that other programs hold while they download the same content.
    pub lock: Option<PathBuf>,
    /// True if a file at `destination` is damaged and must be replaced.
    pub replace: bool,
}

/// Downloads the files of `jobs`; `storage` is used for files that have a Xet hash.
///
/// # Errors
/// The first final failure. It stops all downloads; partial files stay for the next run.
pub fn fetch(hub: &Hub, jobs: &[Job], storage: Option<&Storage>, progress: Listener) -> Result<()> {
    let transfer = Transfer {
        hub,
        jobs,
        storage,
        progress,
        queue: Mutex::default(),
        changed: Condvar::new(),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| transfer.work());
        }
    });
    match locked(&transfer.failure).take() {
        Some(error) => Err(error),
        None => hub.check(),
    }
}

/// State shared by the worker threads.
struct Transfer<'a> {
    hub: &'a Hub,
    jobs: &'a [Job<'a>],
    storage: Option<&'a Storage>,
    progress: Listener<'a>,
    queue: Mutex<Queue<'a>>,
    /// Notified when a waiting thread may find work.
    changed: Condvar,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

/// Work that no thread has taken yet.
#[derive(Default)]
struct Queue<'a> {
    /// Index of the next job to open.
    next: usize,
    /// Number of jobs that threads are opening.
    opening: usize,
    /// Open files that are not complete.
    open: Vec<Arc<OpenFile<'a>>>,
}

/// Piece of an open file: the file, and the index of the piece.
type Task<'a> = (Arc<OpenFile<'a>>, usize);

impl<'a> Queue<'a> {
    /// Takes a pending piece of the open file that has most of them.
    fn take(&self) -> Option<Task<'a>> {
        let open_file =
            self.open.iter().max_by_key(|open_file| locked(&open_file.pending).len())?;
        let piece = locked(&open_file.pending).pop()?;
        Some((open_file.clone(), piece))
    }
}

/// File that is being downloaded.
struct OpenFile<'a> {
    job: &'a Job<'a>,
    digest: Digest,
    partial: Partial,
    source: Source<'a>,
    /// Pieces that no thread has taken yet, in descending order.
    pending: Mutex<Vec<usize>>,
    /// Number of pieces that are not complete.
    missing: AtomicUsize,
    prefix: Mutex<PrefixHasher>,
    _lock: Option<Lock>,
}

impl<'a> OpenFile<'a> {
    fn new(
        job: &'a Job<'a>,
        storage: Option<&'a Storage>,
        lock: Option<Lock>,
    ) -> Result<OpenFile<'a>> {
        let digest = job.file.digest()?;
        let partial = Partial::open(&job.partial, job.file.size, digest)?;
        let whole = |i: &usize| partial.done(*i) == partial.span(*i).1;
        let pending: Vec<usize> = (0..partial.pieces()).rev().filter(|i| !whole(i)).collect();
        Ok(OpenFile {
            job,
            digest,
            source: Source::new(job.url.clone(), storage.zip(job.file.xet_hash.as_deref())),
            missing: AtomicUsize::new(pending.len()),
            pending: Mutex::new(pending),
            prefix: Mutex::new(PrefixHasher::new(digest, job.file.size)),
            partial,
            _lock: lock,
        })
    }
}

impl<'a> Transfer<'a> {
    fn work(&self) {
        while let Some(task) = self.next_task() {
            let done = task.and_then(|(open_file, piece)| self.run(&open_file, piece));
            if let Err(error) = done {
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: Error) {
        locked(&self.failure).get_or_insert(error);
        let _queue = locked(&self.queue);
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Next piece to download: of a new file while few are open, otherwise of an open file.
    fn next_task(&self) -> Option<Result<Task<'a>>> {
        let mut queue = locked(&self.queue);
        while !self.stop.load(Ordering::Relaxed) {
            let job = self.jobs.get(queue.next);
            let enough = queue.open.len() + queue.opening >= OPEN_FILES;
            if (enough || job.is_none())
                && let Some(task) = queue.take()
            {
                return Some(Ok(task));
            }
            queue = match job {
                Some(job) => {
                    queue.next += 1;
                    queue.opening += 1;
                    drop(queue);
                    if let Some(task) = self.open(job).transpose() {
                        return Some(task);
                    }
                    locked(&self.queue)
                }
                None if queue.opening == 0 => return None,
                None => self.changed.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner()),
            };
        }
        None
    }

    /// Opens the file of a job and adds it to the open files; returns its first pending piece.
    fn open(&self, job: &'a Job<'a>) -> Result<Option<Task<'a>>> {
        let opened = self.open_file(job).map_err(|e| with_subject(e, job));
        let mut queue = locked(&self.queue);
        queue.opening -= 1;
        if let Ok(Some((open_file, _))) = &opened {
            queue.open.push(open_file.clone());
        }
        self.changed.notify_all();
        opened
    }

    /// Locks and opens the file of a job; `None` if nothing of it has to be downloaded.
    fn open_file(&self, job: &'a Job<'a>) -> Result<Option<Task<'a>>> {
        let file = job.file;
        let waiting = || (self.progress)(Progress::Locked { path: &file.path });
        let take = |path: &PathBuf| lock::take(path, MODE, &|| self.check(), &waiting);
        let lock = job.lock.as_ref().map(take);
        let lock = lock.transpose()?;
        let begin = |present| {
            (self.progress)(Progress::Begin { path: &file.path, size: file.size, present });
        };
        if !job.replace && is_present(&job.destination, file) {
            begin(file.size); // another program has downloaded it
            partial::clear(&job.partial)?;
            (self.progress)(Progress::Done { path: &file.path });
            return Ok(None);
        }
        let open_file = Arc::new(OpenFile::new(job, self.storage, lock)?);
        begin(open_file.partial.present());
        let Some(first) = locked(&open_file.pending).pop() else {
            return self.finish(&open_file).map(|()| None);
        };
        Ok(Some((open_file, first)))
    }

    /// Downloads one piece; verifies and publishes the file if it was the last one.
    fn run(&self, open_file: &Arc<OpenFile<'a>>, piece: usize) -> Result<()> {
        let about = |e| with_subject(e, open_file.job);
        self.download(open_file, piece).map_err(about)?;
        if open_file.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            locked(&self.queue).open.retain(|other| !Arc::ptr_eq(other, open_file));
            self.finish(open_file).map_err(about)?;
        } else if let Ok(mut prefix) = open_file.prefix.try_lock() {
            open_file.partial.hash_prefix(&mut prefix)?;
        } else {
            open_file.partial.sync_early()?;
        }
        Ok(())
    }

    /// Downloads one piece with retries; an attempt that brings bytes resets the backoff.
    fn download(&self, open_file: &OpenFile, piece: usize) -> Result<()> {
        let path = &*open_file.job.file.path;
        let mut backoff = Backoff::new();
        loop {
            let before = open_file.partial.done(piece);
            let moved = |bytes| {
                (self.progress)(Progress::Moved { path, bytes });
                self.check()
            };
            let failure = match open_file.source.fetch(self.hub, &open_file.partial, piece, &moved)
            {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            self.check()?;
            if open_file.partial.done(piece) > before {
                backoff.reset();
            }
            self.back_off(path, &mut backoff, failure)?;
        }
    }

    fn back_off(&self, path: &str, backoff: &mut Backoff, failure: Failure) -> Result<()> {
        let (wait, reason) = backoff.delay(failure)?;
        (self.progress)(Progress::Retry { path, reason: &reason, wait });
        sleep(wait, || self.hub.check())
    }

    /// Verifies a complete file and publishes it; downloads it once more if verification fails.
    fn finish(&self, open_file: &OpenFile) -> Result<()> {
        let (job, partial) = (open_file.job, &open_file.partial);
        for attempt in 1.. {
            let found = digest_of(open_file)?;
            if found == open_file.digest {
                break;
            }
            open_file.source.disable_xet();
            partial.reset()?;
            (self.progress)(Progress::Lost { path: &job.file.path, bytes: partial.size() });
            if attempt == MAX_DOWNLOADS {
                let message =
                    format!("the Hub sends other content than it lists, with the hash {found}");
                return Err(Error::new(Kind::DownloadFailed, "", message));
            }
            (0..partial.pieces()).try_for_each(|piece| self.download(open_file, piece))?;
        }
        partial.publish(&job.destination)?;
        (self.progress)(Progress::Done { path: &job.file.path });
        Ok(())
    }

    /// Fails if the user has cancelled or another thread has failed.
    fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(interrupted()),
            false => self.hub.check(),
        }
    }
}

/// Digest of a complete file; it is synced to disk while the rest is hashed.
fn digest_of(open_file: &OpenFile) -> Result<Digest> {
    thread::scope(|scope| {
        let sync = scope.spawn(|| open_file.partial.sync());
        let mut prefix = locked(&open_file.prefix);
        open_file.partial.hash_prefix(&mut prefix)?;
        let anew = PrefixHasher::new(open_file.digest, open_file.partial.size());
        let found = std::mem::replace(&mut *prefix, anew).finish();
        let synced = sync.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        synced.map(|()| found)
    })
}

/// Errors if the disk of `directory` has no room for `bytes` more.
pub fn check_disk_space(directory: &Path, bytes: u64) -> Result<()> {
    disk_space::check(directory, bytes).map_err(|mut e| {
        e.kind = Kind::DownloadFailed;
        e.hint("mlxk-rm --prune frees what nothing uses; HF_HUB_CACHE names another disk")
    })
}

/// True if `path` is a file of the size of `file`; its content is not checked.
pub fn is_present(path: &Path, file: &RemoteFile) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.len() == file.size)
}

/// The error with the job's file as its subject, unless it has one (a path, for an error of the
/// disk).
fn with_subject(error: Error, job: &Job) -> Error {
    match error.subject.is_empty() {
        true => error.about(format!("{}: {}", job.model, job.file.path)),
        false => error,
    }
}

/// Locks `mutex`; poisoning is ignored, since no critical section leaves partial changes.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
