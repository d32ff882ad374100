//! Transcriptions: requests and events of speech models, languages, and the forms of a transcript.

pub mod document;
pub mod format;
pub mod language;
pub mod lines;
mod speech;

pub use document::Transcript;
pub use format::{TranscriptFormat, TranscriptWriter};
pub use lines::LineOptions;
pub use speech::*;
