//! Networks that write down speech, by the way their output becomes tokens.

mod alignment_heads;
mod encoder_decoder;
pub mod whisper;
mod whisper_names;

pub use encoder_decoder::{Aligned, EncoderDecoder, Heard, Input, Sizes};

/// Network that writes down speech.
pub enum Speech {
    /// Decoder that writes token after token, and attends to the encoded audio.
    Attention(Box<dyn EncoderDecoder>),
}
