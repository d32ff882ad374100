//! One model on several processes or machines, by MLX's own backends: a ring over TCP, JACCL.
//!
//! Each rank holds a [`Part`] of the model. Rank 0 has the texts, and chooses the tokens; before each
//! pass it tells the others, over lines of their own, which texts advance by which tokens
//! ([`line`]), and they do the same pass with their parts. What layers hand each other goes by MLX.

mod follow;
mod lead;
mod partition;
mod place;
mod wire;

pub use follow::follow;
pub use lead::{Party, Watch};
pub use place::Place;
