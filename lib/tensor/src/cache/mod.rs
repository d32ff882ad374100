//! What a model remembers of the sequences that it continues.

mod buffer;
mod compressed;
mod kv;
mod remote;
mod sequences;
mod state;

use std::iter;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};

pub use buffer::Packing;
pub use compressed::CompressedKv;
pub use kv::{Kv, KvMask};
pub use remote::Remote;
pub use sequences::Sequences;
pub use state::State;

/// What a model remembers of one text.
#[derive(Clone)]
pub struct Cache {
    /// One for each layer that mixes tokens, in the order that the model gives them.
    pub slots: Vec<Slot>,
}

/// What a layer remembers.
#[derive(Clone)]
pub enum Slot {
    /// Keys and values.
    Kv(Kv),
    /// A row for every few tokens.
    CompressedKv(CompressedKv),
    /// Arrays of a fixed size.
    State(State),
    /// What other ranks hold: after all layers' own.
    Remote(Box<dyn Remote>),
}

impl Cache {
    /// The keys and values in slot number `slot`. Errors if it holds others.
    pub fn kv(&mut self, slot: usize) -> Result<&mut Kv> {
        match &mut self.slots[slot] {
            Slot::Kv(kv) => Ok(kv),
            _ => Err(Exception::custom("the slot holds no keys and values")),
        }
    }

    /// The rows in slot number `slot`. Errors if it holds others.
    pub fn compressed(&mut self, slot: usize) -> Result<&mut CompressedKv> {
        match &mut self.slots[slot] {
            Slot::CompressedKv(compressed) => Ok(compressed),
            _ => Err(Exception::custom("the slot holds no rows of several tokens")),
        }
    }

    /// Forgets the last `count` tokens; false if it cannot: then it is of no more use.
    pub fn forget(&mut self, count: usize) -> bool {
        self.slots.iter_mut().all(|slot| match slot {
            Slot::Kv(kv) => kv.forget(count as i32),
            Slot::CompressedKv(compressed) => compressed.forget(count as i32),
            Slot::State(_) => count == 0,
            Slot::Remote(remote) => remote.forget(count),
        })
    }

    /// Whether any number of tokens can be forgotten, as long as no window has moved on.
    pub fn forgets(&self) -> bool {
        self.slots.iter().all(|slot| match slot {
            Slot::Kv(_) | Slot::CompressedKv(_) => true,
            Slot::State(_) => false,
            Slot::Remote(remote) => remote.forgets(),
        })
    }

    /// What other ranks call the text, if there are others.
    pub fn remote(&self) -> Option<u64> {
        match self.slots.last() {
            Some(Slot::Remote(remote)) => Some(remote.sequence()),
            _ => None,
        }
    }

    /// Bytes of its arrays.
    pub fn bytes(&self) -> u64 {
        self.arrays().map(|array| array.nbytes() as u64).sum()
    }

    /// The same with every memory of keys and values changed.
    pub fn with_kv(self, change: impl Fn(Kv) -> Kv) -> Cache {
        let slots = self.slots.into_iter().map(|slot| match slot {
            Slot::Kv(kv) => Slot::Kv(change(kv)),
            other => other,
        });
        Cache { slots: slots.collect() }
    }

    /// What is to be evaluated for the tokens so far to be remembered.
    pub fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.slots.iter().flat_map(|slot| -> Box<dyn Iterator<Item = &Array>> {
            match slot {
                Slot::Kv(kv) => Box::new(kv.arrays()),
                Slot::CompressedKv(compressed) => Box::new(compressed.arrays()),
                Slot::State(state) => Box::new(state.arrays.iter().flatten()),
                Slot::Remote(_) => Box::new(iter::empty()),
            }
        })
    }
}
