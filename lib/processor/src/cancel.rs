//! Cancellation of work that a client waits for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use llguidance::CancellationHandle;
use mlxk_core::{Error, Kind};

/// Request to end work early, which the thread that waits for the work makes.
#[derive(Debug, Default)]
pub struct Cancel {
    requested: AtomicBool,
    /// Handle of a grammar that the work has begun to follow.
    grammar: Mutex<Option<CancellationHandle>>,
}

impl Cancel {
    /// Asks the work to end.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Relaxed);
        if let Some(handle) = &*self.grammar.lock().unwrap_or_else(PoisonError::into_inner) {
            handle.cancel();
        }
    }

    /// True if the work is to end.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Passes a request, also an earlier one, on to a grammar.
    pub fn forward(&self, handle: CancellationHandle) {
        let mut grammar = self.grammar.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_requested() {
            handle.cancel();
        }
        *grammar = Some(handle);
    }
}

/// Error of work that ended because nobody waits for it.
pub fn cancelled() -> Error {
    Error::new(Kind::Execution, "", "nobody waits for the answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grammar_hears_of_a_request_before_and_after_it_begins() {
        let (cancel, early, late) =
            (Cancel::default(), CancellationHandle::default(), CancellationHandle::default());
        cancel.forward(early.clone());
        assert!(!early.is_cancelled());
        cancel.request();
        assert!(early.is_cancelled());
        cancel.forward(late.clone());
        assert!(late.is_cancelled());
    }
}
