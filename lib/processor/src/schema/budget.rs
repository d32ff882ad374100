//! Budget of lowering one schema, which bounds the work that no size of the schema bounds.

use std::cell::Cell;

/// Maximum number of steps of comparing schemas.
const MAX_STEPS: usize = 200_000;

/// Maximum number of automata that are made.
const MAX_AUTOMATA: usize = 100;

/// Work that is still allowed.
pub struct Budget {
    steps: Cell<usize>,
    automata: Cell<usize>,
}

impl Budget {
    /// Budget of one schema.
    pub fn new() -> Budget {
        Budget { steps: Cell::new(MAX_STEPS), automata: Cell::new(MAX_AUTOMATA) }
    }

    /// Takes a step of a comparison. Returns false if there is none left.
    pub fn step(&self) -> bool {
        take(&self.steps)
    }

    /// Takes an automaton. Returns false if there is none left.
    pub fn automaton(&self) -> bool {
        take(&self.automata)
    }
}

fn take(left: &Cell<usize>) -> bool {
    left.replace(left.get().saturating_sub(1)) > 0
}
