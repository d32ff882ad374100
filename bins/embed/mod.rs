//! Embedding of the texts of files and standard input.

mod encoding;
mod input;
mod vectors;

pub use encoding::Encoding;
pub use input::Source;
pub use vectors::{Options, Prompt, embed};
