//! Embedding of the texts of files and standard input, and search by their vectors.

mod encoding;
mod index;
mod input;
mod matrix;
mod model;
mod ranking;
mod rerank;
mod search;
mod vectors;

pub use encoding::Encoding;
pub use input::Source;
pub use matrix::Format;
pub use model::{Model, Options};
pub use ranking::Ranking;
pub use rerank::{Question, rerank};
pub use search::search;
pub use vectors::{embed, save};
