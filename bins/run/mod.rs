//! Runs of a model: one prompt, a batch of requests, a chat, or a benchmark.

mod answer;
mod batch;
mod bench;
mod chat;
mod files;
mod flags;
mod load;
mod options;
mod page;
mod record;

pub use answer::answer;
pub use bench::bench;
pub use flags::Flags;
