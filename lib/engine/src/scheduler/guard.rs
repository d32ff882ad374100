//! What keeps a fault in one request from the others.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlxk_core::{Error, Kind, Result};

use super::shared::Shared;

/// Does `work`, whose panic is an error. What it had in hand is not to be used any further.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let error = Error::new(Kind::Internal, "", "a fault of the program");
        Err(error.hint("what it wrote to its log tells where"))
    })
}

/// A place in the line, free again when it is dropped.
pub struct Turn {
    shared: Arc<Shared>,
    /// Lower for those that came earlier.
    pub number: u64,
}

impl Turn {
    /// The last place, if fewer than `most` are taken.
    pub fn take(shared: &Arc<Shared>, most: u64) -> Result<Turn> {
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let number = shared.taken.fetch_add(1, Ordering::Relaxed);
        let turn = Turn { shared: Arc::clone(shared), number };
        if before < most {
            return Ok(turn);
        }
        Err(Error::new(Kind::QueueFull, "", format!("{most} requests wait, and no more may")))
    }
}

impl Drop for Turn {
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
        let turn = Turn::take(&shared, 1).unwrap();
        assert_eq!(Turn::take(&shared, 1).err().unwrap().kind, Kind::QueueFull);
        let failed = guarded(move || -> Result<()> {
            let _turn = turn;
            panic!("boo")
        });
        assert_eq!(failed.unwrap_err().kind, Kind::Internal);
        assert_eq!(shared.waiting.load(Ordering::Relaxed), 0);
        Turn::take(&shared, 1).unwrap();
    }
}
