//! Memory of the bodies of all requests, which has a common limit.
//!
//! A body counts from its first bytes until its requests are prepared. When the memory is used up,
//! the bodies whose clients have been silent longest are given up, so clients that stop in the
//! middle of a body keep nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::error::ApiError;

/// Size of a body, in bytes, up to which it does not count: small requests are always let in.
const SMALL: usize = 64 << 10;

/// Longest time for which a body waits until others are done.
const WAIT: Duration = Duration::from_secs(20);

/// Time between two looks for room.
const LOOK: Duration = Duration::from_millis(50);

/// Time without progress after which a body may be given up.
const SILENT: Duration = Duration::from_millis(200);

/// Bytes that are progress.
const PROGRESS: usize = 16 << 10;

/// Size of a body, in bytes, from which free memory goes back to the system after it.
const LARGE: usize = 256 << 10;

/// Memory of the bodies of all requests.
pub struct HeldBodies {
    /// Limit of all bodies together, in bytes.
    limit: usize,
    /// Gives the allocator's free memory back to the system.
    trim: fn(),
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    /// Bytes of all bodies.
    used: usize,
    /// Bodies that are being received; the lowest number has made no progress for longest.
    receiving: BTreeMap<u64, Receiving>,
    /// Numbers given so far.
    numbers: u64,
}

struct Receiving {
    bytes: usize,
    /// Time of the last progress.
    since: Instant,
    /// True if the body waits for room, so that its client may be silent through no fault of its.
    waits: bool,
    given_up: Arc<Notify>,
}

impl HeldBodies {
    /// No bodies yet, of which all together may have `limit` bytes. `trim` gives the allocator's
    /// free memory back to the system.
    pub fn new(limit: usize, trim: fn()) -> Arc<HeldBodies> {
        Arc::new(HeldBodies { limit, trim, state: Mutex::default(), freed: Notify::new() })
    }

    /// A body that is about to be received.
    pub fn receive(self: &Arc<HeldBodies>) -> HeldBody {
        let (bodies, given_up) = (Arc::clone(self), Arc::default());
        HeldBody { bodies, bytes: 0, progress: 0, costly: false, number: None, given_up }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of one body, which is free again when this is dropped.
pub struct HeldBody {
    bodies: Arc<HeldBodies>,
    /// Size so far, in bytes.
    bytes: usize,
    /// Size at the last progress, in bytes.
    progress: usize,
    /// True if free memory goes back to the system after a small body too.
    costly: bool,
    /// Number among the bodies that are being received.
    number: Option<u64>,
    given_up: Arc<Notify>,
}

impl HeldBody {
    /// Counts further bytes of the body, of which there are `bytes` then. Waits for others to be
    /// done if there is no room.
    ///
    /// # Errors
    /// With status 503 if there is no room in time.
    pub async fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let bodies = Arc::clone(&self.bodies);
        let room = async {
            loop {
                let freed = bodies.freed.notified();
                if self.count(bytes) {
                    return;
                }
                // A body may fall silent without a sign.
                let _ = timeout(LOOK, freed).await;
            }
        };
        timeout(WAIT, room).await.map_err(|_| full())
    }

    /// Counts the body as received: it is not given up any more.
    pub fn received(&mut self) {
        let number = self.number.take();
        let given_up = |number| self.bodies.lock().receiving.remove(&number).is_none();
        if number.is_some_and(given_up) {
            self.bytes = 0;
        }
    }

    /// Counts `bytes` more of a received body, as copies of it take.
    ///
    /// # Errors
    /// With status 503 if there is no room.
    pub fn copy(&mut self, bytes: usize) -> Result<(), ApiError> {
        let mut state = self.bodies.lock();
        if state.used + bytes > self.bodies.limit {
            return Err(full());
        }
        state.used += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Notes that the requests of the body take much more memory than itself, as rules do.
    pub fn set_costly(&mut self) {
        self.costly = true;
    }

    /// Waits until the body is given up for another.
    pub fn given_up(&self) -> impl Future<Output = ApiError> + use<> {
        let given_up = Arc::clone(&self.given_up);
        async move {
            given_up.notified().await;
            let message = "the body stopped coming, and other requests needed its memory";
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "validation_error", message)
        }
    }

    /// Counts the body as one of `bytes`, and gives up others for it. Returns false if there is no
    /// room.
    fn count(&mut self, bytes: usize) -> bool {
        if bytes <= SMALL {
            return true;
        }
        let mut state = self.bodies.lock();
        let known = self.number.map(|number| state.receiving.remove(&number));
        if matches!(known, Some(None)) {
            // Given up meanwhile, which `given_up` tells.
            return false;
        }
        let known = known.flatten().filter(|_| bytes < self.progress + PROGRESS);
        let more = bytes - self.bytes;
        state.make_room(more, self.bodies.limit);
        let fits = state.used + more <= self.bodies.limit;
        if fits {
            state.used += more;
            self.bytes = bytes;
        }
        let (number, since) = match (known, self.number) {
            (Some(known), Some(number)) if !fits || !known.waits => (number, known.since),
            _ => {
                self.progress = bytes;
                state.numbers += 1;
                (state.numbers, Instant::now())
            }
        };
        let given_up = Arc::clone(&self.given_up);
        state
            .receiving
            .insert(number, Receiving { bytes: self.bytes, since, waits: !fits, given_up });
        self.number = Some(number);
        fits
    }
}

impl State {
    /// Gives up silent bodies until there is room for `more` bytes within `limit`, or no body is
    /// silent.
    fn make_room(&mut self, more: usize, limit: usize) {
        while self.used + more > limit {
            let mut bodies = self.receiving.iter();
            let oldest = bodies.clone().find(|(_, body)| !body.waits).or_else(|| bodies.next());
            let silent = oldest.filter(|(_, body)| body.since.elapsed() >= SILENT);
            let Some(number) = silent.map(|(&number, _)| number) else { return };
            let Some(silent) = self.receiving.remove(&number) else { return };
            self.used -= silent.bytes;
            silent.given_up.notify_one();
        }
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        let mut state = self.bodies.lock();
        let given_up = self.number.is_some_and(|number| state.receiving.remove(&number).is_none());
        if !given_up {
            state.used -= self.bytes;
        }
        drop(state);
        self.bodies.freed.notify_waiters();
        let runtime = Handle::try_current().ok().filter(|_| self.costly || self.bytes > LARGE);
        runtime.map(|runtime| runtime.spawn_blocking(self.bodies.trim));
    }
}

fn full() -> ApiError {
    let message = "the bodies of other requests take all memory for them";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "insufficient_memory", message)
}
