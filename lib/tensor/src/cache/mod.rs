//! Caches of sequences: keys and values, and states of recurrent layers.

mod buffer;
mod compressed;
mod cost;
mod kv;
mod layout;
mod remote;
mod sequences;
mod state;

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};

pub use buffer::Packing;
pub use compressed::CompressedKv;
pub use cost::CacheCost;
pub use kv::{Kv, KvMask};
pub use layout::KvLayout;
pub use remote::Remote;
pub use sequences::Sequences;
pub use state::State;

/// Cache of a sequence.
#[derive(Clone)]
pub struct Cache {
    /// Slots of the layers that mix tokens, in the order that the model defines.
    pub slots: Vec<Slot>,
}

/// Cache of a sequence in a layer.
#[derive(Clone)]
pub enum Slot {
    /// Keys and values.
    Kv(Kv),
    /// Rows that stand for several tokens each.
    CompressedKv(CompressedKv),
    /// Arrays of a fixed size.
    State(State),
    /// Cache of the sequence on other ranks; comes after those of all layers.
    Remote(Box<dyn Remote>),
}

impl Cache {
    /// Keys and values in slot number `slot`. Errors if it holds something else.
    pub fn kv(&mut self, slot: usize) -> Result<&mut Kv> {
        match &mut self.slots[slot] {
            Slot::Kv(kv) => Ok(kv),
            _ => Err(Exception::custom("the slot holds no keys and values")),
        }
    }

    /// Compressed rows in slot number `slot`. Errors if it holds something else.
    pub fn compressed(&mut self, slot: usize) -> Result<&mut CompressedKv> {
        match &mut self.slots[slot] {
            Slot::CompressedKv(compressed) => Ok(compressed),
            _ => Err(Exception::custom("the slot holds no rows of several tokens")),
        }
    }

    /// Removes the last `count` tokens; if it returns false, the cache must not be used further.
    pub fn forget(&mut self, count: usize) -> bool {
        self.slots.iter_mut().all(|slot| match slot {
            Slot::Kv(kv) => kv.forget(count as i32),
            Slot::CompressedKv(compressed) => compressed.forget(count as i32),
            Slot::State(_) => count == 0,
            Slot::Remote(remote) => remote.forget(count),
        })
    }

    /// True if any number of tokens can be removed, as long as no window has moved on.
    pub fn forgets(&self) -> bool {
        self.slots.iter().all(|slot| match slot {
            Slot::Kv(_) | Slot::CompressedKv(_) => true,
            Slot::State(_) => false,
            Slot::Remote(remote) => remote.forgets(),
        })
    }

    /// Identifier of the sequence on other ranks; `None` if there are none.
    pub fn remote(&self) -> Option<u64> {
        match self.slots.last() {
            Some(Slot::Remote(remote)) => Some(remote.sequence()),
            _ => None,
        }
    }

    /// True if the tokens of a block attend to each other in a layer.
    pub fn has_blocks(&self) -> bool {
        self.slots.iter().any(|slot| match slot {
            Slot::Kv(kv) => kv.layout().blocks,
            Slot::Remote(remote) => remote.has_blocks(),
            _ => false,
        })
    }

    /// Sets the blocks of the sequence, by positions, for the layers in which the tokens of a block
    /// attend to each other.
    pub fn set_blocks(&mut self, blocks: &Arc<[Range<i32>]>) {
        for slot in &mut self.slots {
            match slot {
                Slot::Kv(kv) => kv.set_blocks(blocks),
                Slot::Remote(remote) => remote.set_blocks(blocks),
                _ => {}
            }
        }
    }

    /// Bytes of the arrays of all slots.
    pub fn bytes(&self) -> u64 {
        self.arrays().map(|array| array.nbytes() as u64).sum()
    }

    /// Cache with the layout of all keys and values changed, before the first token.
    pub fn with_layout(self, change: impl Fn(KvLayout) -> KvLayout) -> Cache {
        let slots = self.slots.into_iter().map(|slot| match slot {
            Slot::Kv(kv) => Slot::Kv(kv.with_layout(&change)),
            other => other,
        });
        Cache { slots: slots.collect() }
    }

    /// Arrays of all slots, to be evaluated after each step.
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
