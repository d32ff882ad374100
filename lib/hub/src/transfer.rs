//! Many files at once, each in pieces: what `pull` and `clone` have in common.
//!
//! A few threads take pieces of files that are open, else open the next file. Whoever brings the
//! last piece of a file verifies it and gives it its name, so that under a name there is never
//! anything but what the Hub lists.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use mlxk_core::digest::Digest;
use mlxk_core::store::disk_space;
use mlxk_core::store::lock::{self, Lock, MODE};
use mlxk_core::{Error, Kind, Result};

use crate::client::Hub;
use crate::event::{Event, Listener};
use crate::listing::RemoteFile;
use crate::part::{self, Follower, Part};
use crate::patience::{Patience, interrupted, sleep};
use crate::refusal::Failure;
use crate::stream::Source;
use crate::xet::Storage;

/// Connections at once. More of them find no more bandwidth, but servers that mind.
const CONNECTIONS: usize = 8;

/// Files at once, as long as there are more: of the threads that write to one file all but one wait.
const SIDE_BY_SIDE: usize = 2;

/// How often a file is fetched whose content turns out to be wrong.
const TRIES: usize = 2;

/// A file to fetch.
#[derive(Debug)]
pub struct Job<'a> {
    /// The model it belongs to.
    pub model: &'a str,
    /// What the Hub says of it.
    pub file: &'a RemoteFile,
    /// Its address.
    pub url: String,
    /// Where its part lies until it is whole, `*.incomplete`.
    pub part: PathBuf,
    /// Where it belongs.
    pub place: PathBuf,
    /// What other programs lock while they fetch the same.
    pub lock: Option<PathBuf>,
    /// What is in that place is known to be bad.
    pub replace: bool,
}

/// Fetches the files of `jobs`.
///
/// `storage` has those of them that have a Xet hash. At the first failure that is final the others
/// stop; what came of them is kept for a next run.
pub fn fetch(hub: &Hub, jobs: &[Job], storage: Option<&Storage>, told: Listener) -> Result<()> {
    let crew = Crew {
        hub,
        jobs,
        storage,
        told,
        queue: Mutex::default(),
        changed: Condvar::new(),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| crew.work());
        }
    });
    match held(&crew.failure).take() {
        Some(error) => Err(error),
        None => hub.check(),
    }
}

struct Crew<'a> {
    hub: &'a Hub,
    jobs: &'a [Job<'a>],
    storage: Option<&'a Storage>,
    told: Listener<'a>,
    queue: Mutex<Queue<'a>>,
    /// Told when there may be work for those who found none.
    changed: Condvar,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

/// What there is to do.
#[derive(Default)]
struct Queue<'a> {
    /// The first job that nobody has begun.
    next: usize,
    /// Jobs that are just being begun.
    beginning: usize,
    /// Files of several pieces that are not whole yet.
    open: Vec<Arc<Active<'a>>>,
}

/// A piece of a file.
type Work<'a> = (Arc<Active<'a>>, usize);

impl<'a> Queue<'a> {
    /// A piece that nobody fetches yet, of the file that has most of them.
    fn take(&self) -> Option<Work<'a>> {
        let active = self.open.iter().max_by_key(|active| held(&active.pending).len())?;
        let piece = held(&active.pending).pop()?;
        Some((active.clone(), piece))
    }
}

/// A file that is being fetched.
struct Active<'a> {
    job: &'a Job<'a>,
    digest: Digest,
    part: Part,
    source: Source<'a>,
    /// Pieces that nobody fetches yet, the first one last.
    pending: Mutex<Vec<usize>>,
    /// Pieces that are not whole yet.
    missing: AtomicUsize,
    follower: Mutex<Follower>,
    _lock: Option<Lock>,
}

impl<'a> Active<'a> {
    fn new(
        job: &'a Job<'a>,
        storage: Option<&'a Storage>,
        lock: Option<Lock>,
    ) -> Result<Active<'a>> {
        let digest = job.file.digest()?;
        let part = Part::open(&job.part, job.file.size, digest)?;
        let whole = |i: &usize| part.done(*i) == part.span(*i).1;
        let pending: Vec<usize> = (0..part.pieces()).rev().filter(|i| !whole(i)).collect();
        Ok(Active {
            job,
            digest,
            source: Source::new(job.url.clone(), storage.zip(job.file.xet_hash.as_deref())),
            missing: AtomicUsize::new(pending.len()),
            pending: Mutex::new(pending),
            follower: Mutex::new(Follower::new(digest, job.file.size)),
            part,
            _lock: lock,
        })
    }
}

impl<'a> Crew<'a> {
    fn work(&self) {
        while let Some(work) = self.next_work() {
            let done = work.and_then(|(active, piece)| self.piece(&active, piece));
            if let Err(error) = done {
                self.fail(error);
            }
        }
    }

    fn fail(&self, error: Error) {
        held(&self.failure).get_or_insert(error);
        let _queue = held(&self.queue);
        self.stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// A piece to fetch: of the next file while few are open, else of one of those.
    fn next_work(&self) -> Option<Result<Work<'a>>> {
        let mut queue = held(&self.queue);
        while !self.stop.load(Ordering::Relaxed) {
            let job = self.jobs.get(queue.next);
            let enough = queue.open.len() + queue.beginning >= SIDE_BY_SIDE;
            if (enough || job.is_none())
                && let Some(work) = queue.take()
            {
                return Some(Ok(work));
            }
            queue = match job {
                Some(job) => {
                    queue.next += 1;
                    queue.beginning += 1;
                    drop(queue);
                    if let Some(work) = self.open(job).transpose() {
                        return Some(work);
                    }
                    held(&self.queue)
                }
                None if queue.beginning == 0 => return None,
                None => self.changed.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner()),
            };
        }
        None
    }

    /// Begins a job, and puts its file among those that others may help with.
    fn open(&self, job: &'a Job<'a>) -> Result<Option<Work<'a>>> {
        let begun = self.begin(job).map_err(|e| about(e, job));
        let mut queue = held(&self.queue);
        queue.beginning -= 1;
        if let Ok(Some((active, _))) = &begun {
            queue.open.push(active.clone());
        }
        self.changed.notify_all();
        begun
    }

    /// Opens a file, and takes a piece of it; none if it needs no fetching.
    fn begin(&self, job: &'a Job<'a>) -> Result<Option<Work<'a>>> {
        let file = job.file;
        let waiting = || (self.told)(Event::Locked { path: &file.path });
        let take = |path: &PathBuf| lock::take(path, MODE, &|| self.check(), &waiting);
        let lock = job.lock.as_ref().map(take);
        let lock = lock.transpose()?;
        let told = |present| {
            (self.told)(Event::Begin { path: &file.path, size: file.size, present });
        };
        if !job.replace && is_there(&job.place, file) {
            told(file.size); // another program was faster
            part::clear(&job.part)?;
            (self.told)(Event::Done { path: &file.path });
            return Ok(None);
        }
        let active = Arc::new(Active::new(job, self.storage, lock)?);
        told(active.part.present());
        let Some(first) = held(&active.pending).pop() else {
            return self.finish(&active).map(|()| None);
        };
        Ok(Some((active, first)))
    }

    /// Fetches one piece, whatever it takes.
    fn piece(&self, active: &Arc<Active<'a>>, piece: usize) -> Result<()> {
        let about = |e| about(e, active.job);
        self.bring(active, piece).map_err(about)?;
        if active.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            held(&self.queue).open.retain(|other| !Arc::ptr_eq(other, active));
            self.finish(active).map_err(about)?;
        } else if let Ok(mut follower) = active.follower.try_lock() {
            active.part.follow(&mut follower)?;
        } else {
            active.part.sync_early()?;
        }
        Ok(())
    }

    fn bring(&self, active: &Active, piece: usize) -> Result<()> {
        let path = &*active.job.file.path;
        let mut patience = Patience::new();
        loop {
            let before = active.part.done(piece);
            let moved = |bytes| {
                (self.told)(Event::Moved { path, bytes });
                self.check()
            };
            let failure = match active.source.fetch(self.hub, &active.part, piece, &moved) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            self.check()?;
            if active.part.done(piece) > before {
                patience.restore();
            }
            self.bear(path, &mut patience, failure)?;
        }
    }

    fn bear(&self, path: &str, patience: &mut Patience, failure: Failure) -> Result<()> {
        let (wait, reason) = patience.wait(failure)?;
        (self.told)(Event::Retry { path, reason: &reason, wait });
        sleep(wait, || self.hub.check())
    }

    /// Verifies a file that is whole, and puts it into its place. If it is wrong, once more.
    fn finish(&self, active: &Active) -> Result<()> {
        let (job, part) = (active.job, &active.part);
        for attempt in 1.. {
            let found = digest_of(active)?;
            if found == active.digest {
                break;
            }
            active.source.distrust();
            part.reset()?;
            (self.told)(Event::Lost { path: &job.file.path, bytes: part.size() });
            if attempt == TRIES {
                let message =
                    format!("the Hub sends other content than it lists, with the hash {found}");
                return Err(Error::new(Kind::DownloadFailed, "", message));
            }
            (0..part.pieces()).try_for_each(|piece| self.bring(active, piece))?;
        }
        part.publish(&job.place)?;
        (self.told)(Event::Done { path: &job.file.path });
        Ok(())
    }

    /// An error if the user or another thread has ended the work.
    fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(interrupted()),
            false => self.hub.check(),
        }
    }
}

/// The digest of a file that is whole; while the rest of it is hashed, the disk gets it.
fn digest_of(active: &Active) -> Result<Digest> {
    thread::scope(|scope| {
        let sync = scope.spawn(|| active.part.sync());
        let mut follower = held(&active.follower);
        active.part.follow(&mut follower)?;
        let anew = Follower::new(active.digest, active.part.size());
        let found = std::mem::replace(&mut *follower, anew).finish();
        let synced = sync.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        synced.map(|()| found)
    })
}

/// An error if there is no room for `bytes` more below `directory`: asked before the first comes.
pub fn check_room(directory: &Path, bytes: u64) -> Result<()> {
    disk_space::check(directory, bytes).map_err(|mut e| {
        e.kind = Kind::DownloadFailed;
        e.hint("mlxk-rm --prune frees what nothing uses; HF_HUB_CACHE names another disk")
    })
}

/// True if `place` holds the file, as far as its size tells.
pub fn is_there(place: &Path, file: &RemoteFile) -> bool {
    place.metadata().is_ok_and(|data| data.is_file() && data.len() == file.size)
}

/// An error of the network says which file it is about; one of the disk knows its own.
fn about(error: Error, job: &Job) -> Error {
    match error.subject.is_empty() {
        true => error.about(format!("{}: {}", job.model, job.file.path)),
        false => error,
    }
}

/// What a lock protects is never left half done: every write is a single one.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
