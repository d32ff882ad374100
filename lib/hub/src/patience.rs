//! How often and how long to wait for a Hub that fails: a back-off that doubles, with some chance in it.

use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use mlxk_core::{Error, Kind};

use crate::refusal::Failure;

/// The first wait; each one after it is twice as long, up to the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(16);

/// A server that asks for more time than this is not waited for.
const TOO_LONG: Duration = Duration::from_secs(600);

/// Failures in a row that are borne.
const ATTEMPTS: u32 = 5;

/// What is left of the patience with one task.
#[derive(Debug)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// Full patience.
    pub fn new() -> Patience {
        Patience { failures: 0 }
    }

    /// There was progress: patience is full again.
    pub fn restore(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after `failure`; its error if that is no use any more.
    pub fn wait(&mut self, failure: Failure) -> Result<(Duration, String), Error> {
        self.failures += 1;
        let wait = failure.wait.unwrap_or_else(|| backoff(self.failures));
        match failure.transient && self.failures < ATTEMPTS && wait <= TOO_LONG {
            true => Ok((wait, failure.error.message)),
            false => Err(*failure.error),
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Patience::new()
    }
}

/// Sleeps, but not longer than until `check` says that the user has enough of it.
pub fn sleep(time: Duration, check: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        check()?;
        thread::sleep(left.min(Duration::from_millis(50)));
    }
    check()
}

/// The error of work that the user has ended.
pub fn interrupted() -> Error {
    Error::new(Kind::Execution, "", "interrupted")
}

/// Between half and all of the time that the number of failures asks for.
fn backoff(failures: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST);
    // The seed of a hash map is the chance that the standard library has.
    let chance = RandomState::new().hash_one(failures) as u32;
    whole / 2 + whole.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::*;

    fn failure(transient: bool, wait: Option<Duration>) -> Failure {
        Failure { error: Box::new(Error::new(Kind::DownloadFailed, "", "why")), transient, wait }
    }

    #[test]
    fn waits_grow_and_end() {
        let mut patience = Patience::new();
        let waits: Vec<_> = (0..4).map(|_| patience.wait(failure(true, None)).unwrap().0).collect();
        for (wait, most) in waits.iter().zip([500, 1000, 2000, 4000]) {
            let most = Duration::from_millis(most);
            assert!(*wait >= most / 2 && *wait <= most, "{waits:?}");
        }
        assert!(patience.wait(failure(true, None)).is_err());
        patience.restore();
        assert!(patience.wait(failure(true, None)).is_ok());
    }

    #[test]
    fn the_server_says_how_long_and_some_failures_are_final() {
        let asked = Duration::from_secs(7);
        assert_eq!(Patience::new().wait(failure(true, Some(asked))).unwrap().0, asked);
        assert!(Patience::new().wait(failure(true, Some(Duration::from_secs(3600)))).is_err());
        assert!(Patience::new().wait(failure(false, None)).is_err());
    }
}
