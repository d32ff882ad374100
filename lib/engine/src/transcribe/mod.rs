//! Transcription: audio in, the segments of its speech out, as they are written.

mod attach;
mod attention;
mod chat;
mod clips;
pub mod ctc;
mod cuts;
mod decode;
mod frames;
mod logits;
mod pieces;
mod repeated;
mod rows;
mod rules;
mod samples;
mod split;
pub mod timed;
pub mod transducer;
pub mod vocabulary;
mod voices;
mod windows;
mod wishes;
mod words;

use std::ops::ControlFlow;

use mlx_rs::Stream;
use mlxk_core::policy::detect;
use mlxk_core::{Facts, Plan, Result};
use mlxk_models::speech::{Ctc, EncoderDecoder, Input, Speech, Transducer};
use mlxk_processor::transcript::{TranscribeOptions, TranscriptEvent};
use mlxk_tensor::mlx;

use crate::load;
use attention::Attention;
use chat::Hearing;
pub use decode::{Attempt, Prompt, WindowDecoder, Written};
use rows::ByRow;
use samples::FromSamples;
pub use words::Timed;

/// Receiver of events.
type Each<'a> = &'a mut dyn FnMut(TranscriptEvent) -> ControlFlow<()>;

/// Speech model in memory. It stays on the thread that loaded it.
pub struct Transcriber {
    kind: Decoder,
    stream: Stream,
}

/// Decoding loop, by the kind of the network.
enum Decoder {
    Attention(Attention),
    Samples(FromSamples),
    Transducer(Box<dyn Transducer>),
    Ctc(Box<dyn Ctc>),
    Chat(Hearing),
}

impl Transcriber {
    /// Loads the speech model of `facts` if `plan` says that it can run, on the device that MLX
    /// chooses.
    ///
    /// # Errors
    /// If the model takes no audio, or one of its files cannot be used.
    pub fn load(facts: &Facts, plan: &Plan) -> Result<Transcriber> {
        Transcriber::load_for(facts, plan, mlx::on_cpu()?)
    }

    /// Loads the speech model in the form for a CPU or in that for a GPU, which a CPU can run too.
    ///
    /// # Errors
    /// If the model is none of speech, or one of its files cannot be used.
    pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<Transcriber> {
        let (network, stream) = load::speech(facts, plan, on_cpu)?;
        let kind = match network {
            Speech::Attention(network) => match network.sizes().input {
                Input::Samples => Decoder::Samples(FromSamples::new(network, facts, on_cpu)?),
                Input::Mel { .. } => {
                    Decoder::Attention(attention(network, facts, stream.clone(), on_cpu)?)
                }
            },
            Speech::Transducer(network) => Decoder::Transducer(network),
            Speech::Ctc(network) => Decoder::Ctc(network),
            Speech::Chat(network) => Decoder::Chat(Hearing::new(network, facts, on_cpu)?),
        };
        Ok(Transcriber { kind, stream })
    }

    /// Samples of a second of the audio that the model takes.
    pub fn sample_rate(&self) -> u32 {
        16_000
    }

    /// Decoder of single windows, if the model has windows.
    pub fn window_decoder(&self) -> Option<&WindowDecoder> {
        match &self.kind {
            Decoder::Attention(attention) => Some(&attention.decoder),
            _ => None,
        }
    }

    /// Writes down the speech of `audio`, blocks of samples of one channel at the
    /// [`sample_rate`](Self::sample_rate). Events go to `each` as soon as they are known, until it
    /// breaks off; the last one is [`TranscriptEvent::End`].
    ///
    /// # Errors
    /// If the model cannot do what `options` ask for, before any audio is read; if the audio cannot be
    /// read; if the network fails.
    pub fn transcribe(
        &self,
        audio: &mut dyn Iterator<Item = Result<Vec<f32>>>,
        options: &TranscribeOptions,
        each: &mut dyn FnMut(TranscriptEvent) -> ControlFlow<()>,
    ) -> Result<()> {
        mlx_rs::with_stream(&self.stream, || match &self.kind {
            Decoder::Attention(network) => network.transcribe(audio, options, each),
            Decoder::Samples(network) => network.transcribe(audio, options, each),
            Decoder::Transducer(network) => {
                ByRow::Transducer(&**network).transcribe(audio, options, each)
            }
            Decoder::Ctc(network) => ByRow::Ctc(&**network).transcribe(audio, options, each),
            Decoder::Chat(network) => network.transcribe(audio, options, each),
        })
    }
}

/// Loop of the attention decoder of a network of log-mel windows, with the vocabulary of `facts`.
fn attention(
    network: Box<dyn EncoderDecoder>,
    facts: &Facts,
    stream: Stream,
    on_cpu: bool,
) -> Result<Attention> {
    let vocabulary = vocabulary::Vocabulary::read(facts, network.sizes().vocabulary)?;
    let translates = detect::translation(facts) && !vocabulary.languages.is_empty();
    let stated = alignment_heads(facts);
    let alignment_heads = stated.unwrap_or_else(|| network.sizes().alignment_heads.clone());
    let decoder = WindowDecoder { network, vocabulary, alignment_heads, stream, on_cpu };
    Attention::new(decoder, translates)
}

/// Layers and heads whose attention follows the words, if generation_config.json lists them.
fn alignment_heads(facts: &Facts) -> Option<Vec<[usize; 2]>> {
    serde_json::from_value(facts.generation_config.get("alignment_heads")?).ok()
}
