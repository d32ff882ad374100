//! Continuous batching: sequences that a model continues together.

mod chunks;
mod draft;
mod pace;
mod shares;
mod state;
mod step;

pub use draft::{Draft, MOST};
pub use state::{Batch, Sequence, Step};
