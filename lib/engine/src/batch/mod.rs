//! Sequences that a model continues together.

mod draft;
mod parts;
mod state;
mod step;

pub use draft::{Draft, MOST};
pub use state::{Batch, Step, Text};
