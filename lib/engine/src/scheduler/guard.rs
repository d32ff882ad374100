//! Isolation of requests: panics become errors, and places in the queue are always released.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlxk_core::{Error, Kind, Result};

use super::shared::Shared;

/// Runs `work`, and turns a panic into an error. State that `work` was changing must not be used any
/// further.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let error = Error::new(Kind::Internal, "", "a fault of the program");
        Err(error.hint("what it wrote to its log tells where"))
    })
}

/// Ticket of a request in the queue; its place is free again when the ticket is dropped.
pub struct Ticket {
    shared: Arc<Shared>,
    /// Number of the ticket: lower for requests that came earlier.
    pub number: u64,
}

impl Ticket {
    /// A ticket for the end of the queue.
    ///
    /// # Errors
    /// [`Kind::QueueFull`] if `most` requests are already waiting.
    pub fn take(shared: &Arc<Shared>, most: u64) -> Result<Ticket> {
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let number = shared.issued.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { shared: Arc::clone(shared), number };
        if before < most {
            return Ok(ticket);
        }
        Err(Error::new(Kind::QueueFull, "", format!("{most} requests wait, and no more may")))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_after_a_panic() {
        let shared = Arc::new(Shared::default());
        let ticket = Ticket::take(&shared, 1).unwrap();
        assert_eq!(Ticket::take(&shared, 1).err().unwrap().kind, Kind::QueueFull);
        let failed = guarded(move || -> Result<()> {
            let _turn = ticket;
            panic!("boo")
        });
        assert_eq!(failed.unwrap_err().kind, Kind::Internal);
        assert_eq!(shared.waiting.load(Ordering::Relaxed), 0);
        Ticket::take(&shared, 1).unwrap();
    }
}
