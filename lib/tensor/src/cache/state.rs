//! What layers without keys and values remember: the tails of convolutions, recurrent states.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};

/// Arrays of a layer that stand for all tokens so far, each absent before the first.
#[derive(Clone)]
pub struct State {
    /// In the order that the layer gives them.
    pub arrays: Vec<Option<Array>>,
}

impl State {
    /// Of a layer that remembers `count` arrays.
    pub fn new(count: usize) -> State {
        State { arrays: vec![None; count] }
    }

    /// All of them. Errors if they are not `N`.
    pub fn parts<const N: usize>(&mut self) -> Result<&mut [Option<Array>; N]> {
        let arrays = self.arrays.as_mut_slice();
        arrays.try_into().map_err(|_| Exception::custom("the slot holds other arrays"))
    }
}
