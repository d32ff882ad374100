//! Networks that write down speech, by the way their output becomes tokens.

mod alignment_heads;
mod chat;
mod ctc;
mod encoder_decoder;
pub mod moonshine;
pub mod nemo;
pub mod parakeet;
pub mod qwen3_asr;
mod transducer;
pub mod whisper;
mod whisper_names;

pub use chat::{Chat, ChatForm};
pub use ctc::Ctc;
pub use encoder_decoder::{Aligned, EncoderDecoder, Heard, Input, Sizes};
pub use transducer::Transducer;

/// Network that writes down speech.
pub enum Speech {
    /// Decoder that writes token after token, and attends to the encoded audio.
    Attention(Box<dyn EncoderDecoder>),
    /// Decoder that decides row after row of the encoded audio, knowing the tokens before.
    Transducer(Box<dyn Transducer>),
    /// Decision for each row of the encoded audio.
    Ctc(Box<dyn Ctc>),
    /// Language model that answers a prompt with the encoded audio.
    Chat(Chat),
}
