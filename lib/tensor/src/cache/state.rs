//! State of layers without keys and values: tails of convolutions, recurrent states.

use mlx_rs::Array;
use mlx_rs::error::{Exception, Result};

/// Arrays of a layer that summarise all tokens so far; each is absent before the first token.
#[derive(Clone)]
pub struct State {
    /// Arrays in the order that the layer defines.
    pub arrays: Vec<Option<Array>>,
}

impl State {
    /// State of a layer with `count` arrays.
    pub fn new(count: usize) -> State {
        State { arrays: vec![None; count] }
    }

    /// Arrays of the state. Errors if their number is not `N`.
    pub fn parts<const N: usize>(&mut self) -> Result<&mut [Option<Array>; N]> {
        let arrays = self.arrays.as_mut_slice();
        arrays.try_into().map_err(|_| Exception::custom("the slot holds other arrays"))
    }
}
