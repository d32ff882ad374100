//! Checkpoints of other forms, brought into the one in which MLX's tools publish a model.
//!
//! Names, shapes, and how each tensor comes from those that are stored, after the `sanitize` of each
//! model of mlx-lm; nothing is read for it. What loads a model and what converts one both start here.

pub mod arithmetic;
pub mod checkpoint;
pub mod experts;
pub mod mla;
mod packed;
mod sanitize;

pub use checkpoint::Checkpoint;
pub use experts::ExpertLayout;
pub use sanitize::{Sanitize, sanitize};
