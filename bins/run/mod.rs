//! Runs of a model: one prompt, a batch of requests, a chat, a benchmark, or transcripts of
//! audio.

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
mod transcribe;

pub use answer::answer;
pub use bench::bench;
pub use flags::Flags;
pub use transcribe::transcribe;
