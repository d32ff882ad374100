//! Sound: from the bytes of an audio file, or of a pipe, to what speech models take.
//!
//! source -> container -> decoder -> mean of the channels -> one sample rate -> log-mel frames, or
//! times of speech. Everything works block by block: memory does not grow with the length.

mod container;
mod decode;
mod error;
mod format;
mod input;
mod log_mel;
mod mel_filters;
mod mp4;
mod opus;
mod resample;
mod stream;
mod vad;
mod wav;

pub use format::{AudioFormat, RawSample};
pub use input::Source;
pub use log_mel::{
    Ends, LogKind, LogMel, Mel, MelOptions, MelStream, Normalization, scale_whisper,
};
pub use mel_filters::MelScale;
pub use stream::AudioStream;
pub use vad::{Vad, VadOptions, speech};
