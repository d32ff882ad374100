//! Embedding of the texts of files and standard input.

mod input;
mod vectors;

pub use vectors::{Options, Prompt, embed};
