//! What layers without keys and values remember: the tails of convolutions, recurrent states.

use mlx_rs::Array;

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
}
