//! Transcription: speech in, text out, by the way a network's output becomes tokens.

pub mod ctc;
mod logits;
pub mod timed;
pub mod transducer;
