//! Exponential backoff with jitter between attempts of a request that fails.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use mlxk_core::{Error, Kind};

use crate::error::Failure;

/// Delay after the first failure; it doubles with each further one, up to [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(500);

/// Longest delay that backoff chooses.
const MAX_DELAY: Duration = Duration::from_secs(16);

/// Longest `Retry-After` that is waited for; a server that asks for more is given up.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Consecutive failures before giving up.
const MAX_FAILURES: u32 = 5;

/// Backoff state of one task: the number of consecutive failures.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Backoff state without failures.
    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// Resets the failure count, after the task made progress.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts `failure` and returns the delay before the next attempt with the failure's message.
    ///
    /// # Errors
    /// The failure's own error if it is final, the attempts are used up, or the server asks for too
    /// long a delay.
    pub fn delay(&mut self, failure: Failure) -> Result<(Duration, String), Error> {
        self.failures += 1;
        let delay = failure.retry_after.unwrap_or_else(|| jittered(self.failures));
        match failure.transient && self.failures < MAX_FAILURES && delay <= MAX_RETRY_AFTER {
            true => Ok((delay, failure.error.message)),
            false => Err(*failure.error),
        }
    }
}

/// Sleeps for `time`, and ends early with the error of `check` once the work is cancelled.
pub fn sleep(time: Duration, check: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        check()?;
        thread::sleep(left.min(Duration::from_millis(50)));
    }
    check()
}

/// Error of work that the user cancelled.
pub fn interrupted() -> Error {
    Error::new(Kind::Execution, "", "interrupted")
}

/// Random delay between half and all of the exponential delay for this number of failures.
fn jittered(failures: u32) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << (failures - 1).min(16)).min(MAX_DELAY);
    // The seed of a hash map is the only randomness in the standard library.
    let random = RandomState::new().hash_one(failures) as u32;
    full / 2 + full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    fn failure(transient: bool, retry_after: Option<Duration>) -> Failure {
        let error = Box::new(Error::new(Kind::DownloadFailed, "", "why"));
        Failure { error, transient, retry_after }
    }

    #[test]
    fn delays_double_until_the_attempts_are_used_up() {
        let mut backoff = Backoff::new();
        let delays: Vec<_> =
            (0..4).map(|_| backoff.delay(failure(true, None)).unwrap().0).collect();
        for (delay, full) in delays.iter().zip([500, 1000, 2000, 4000]) {
            let full = Duration::from_millis(full);
            assert!(*delay >= full / 2 && *delay <= full, "{delays:?}");
        }
        assert!(backoff.delay(failure(true, None)).is_err());
        backoff.reset();
        assert!(backoff.delay(failure(true, None)).is_ok());
    }

    #[test]
    fn retry_after_is_obeyed_and_final_failures_are_not_retried() {
        let asked = Duration::from_secs(7);
        assert_eq!(Backoff::new().delay(failure(true, Some(asked))).unwrap().0, asked);
        assert!(Backoff::new().delay(failure(true, Some(Duration::from_secs(3600)))).is_err());
        assert!(Backoff::new().delay(failure(false, None)).is_err());
    }
}
