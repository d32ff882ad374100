//! Budget of lowering one schema, which bounds the work that no size of the schema bounds.

use std::cell::Cell;
use std::sync::Arc;

use crate::cancel::Cancel;

/// Maximum number of steps of comparing schemas.
const MAX_STEPS: usize = 200_000;

/// Maximum number of automata that are made.
const MAX_AUTOMATA: usize = 100;

/// Work that is still allowed.
pub struct Budget {
    steps: Cell<usize>,
    automata: Cell<usize>,
    cancel: Arc<Cancel>,
}

impl Budget {
    /// Budget of one schema, which `cancel` ends.
    pub fn new(cancel: &Arc<Cancel>) -> Budget {
        let (steps, automata) = (Cell::new(MAX_STEPS), Cell::new(MAX_AUTOMATA));
        Budget { steps, automata, cancel: Arc::clone(cancel) }
    }

    /// True if the work is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_requested()
    }

    /// Takes a step of a comparison. Returns false if there is none left.
    pub fn step(&self) -> bool {
        take(&self.steps) && !self.is_cancelled()
    }

    /// Takes an automaton. Returns false if there is none left.
    pub fn automaton(&self) -> bool {
        take(&self.automata) && !self.is_cancelled()
    }
}

fn take(left: &Cell<usize>) -> bool {
    left.replace(left.get().saturating_sub(1)) > 0
}
