//! What a model remembers of the texts that it continues.

mod kv;
mod state;
mod texts;

use mlx_rs::Array;

pub use kv::{Kv, Visible};
pub use state::State;
pub use texts::Texts;

/// What a model remembers of one text.
pub struct Cache {
    /// One for each layer that mixes tokens, in the order that the model gives them.
    pub slots: Vec<Slot>,
}

/// What a layer remembers.
pub enum Slot {
    /// Keys and values.
    Kv(Kv),
    /// Arrays of a fixed size.
    State(State),
}

impl Cache {
    /// What is to be evaluated for the tokens so far to be remembered.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.slots.iter().flat_map(|slot| -> Box<dyn Iterator<Item = &Array>> {
            match slot {
                Slot::Kv(kv) => Box::new(kv.arrays()),
                Slot::State(state) => Box::new(state.arrays.iter().flatten()),
            }
        })
    }
}
