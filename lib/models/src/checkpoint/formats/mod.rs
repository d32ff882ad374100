//! Conversion of checkpoints of other forms to the one in which MLX's tools publish a model.
//!
//! Defines names, shapes, and the source of each tensor, after the `sanitize` of each model of
//! mlx-lm, without reading elements. Both loading and conversion start here.

pub mod arithmetic;
pub mod checkpoint;
pub mod experts;
pub mod mla;
mod packed;
mod sanitize;

pub use checkpoint::Checkpoint;
pub use experts::ExpertLayout;
pub use sanitize::{Sanitize, sanitize};
