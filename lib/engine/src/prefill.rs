//! Bound of the rows of prompts in a step.

use std::time::Duration;

/// Rows of prompts that a step may run, besides the next tokens of sequences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prefill {
    /// A whole chunk: all sequences end soonest, but each waits for the prompts of the others.
    Chunk,
    /// As many as keep nobody waiting.
    Fair {
        /// Time that the next tokens of all running sequences take, zero if none is running; `None` if a
        /// step without prompts has to measure it.
        streams: Option<Duration>,
    },
}
