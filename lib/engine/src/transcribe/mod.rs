//! Transcription: audio in, the segments of its speech out, as they are written.

mod chat;
mod clips;
pub mod ctc;
mod logits;
mod pieces;
mod repeated;
mod rows;
mod samples;
pub mod timed;
pub mod transducer;
mod windows;
mod wishes;

use std::ops::ControlFlow;

use mlx_rs::Stream;
use mlxk_core::{Facts, Plan, Result};
use mlxk_models::speech::{Ctc, Input, Speech, Transducer};
use mlxk_processor::transcript::{TranscribeOptions, TranscriptEvent};
use mlxk_tensor::mlx;

use crate::load;
use chat::Hearing;
use rows::ByRow;
use samples::FromSamples;

/// Receiver of events.
type Each<'a> = &'a mut dyn FnMut(TranscriptEvent) -> ControlFlow<()>;

/// Speech model in memory. It stays on the thread that loaded it.
pub struct Transcriber {
    kind: Decoder,
    stream: Stream,
}

/// Decoding loop, by the kind of the network.
enum Decoder {
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
    /// As [`load`](Self::load).
    pub fn load_for(facts: &Facts, plan: &Plan, on_cpu: bool) -> Result<Transcriber> {
        let (network, stream) = load::speech(facts, plan, on_cpu)?;
        let kind = match network {
            Speech::Attention(network) => match network.sizes().input {
                Input::Samples => Decoder::Samples(FromSamples::new(network, facts, on_cpu)?),
                Input::Mel { .. } => unimplemented!(),
            },
            Speech::Transducer(network) => Decoder::Transducer(network),
            Speech::Ctc(network) => Decoder::Ctc(network),
            Speech::Chat(network) => Decoder::Chat(Hearing::new(network, facts, on_cpu)?),
        };
        Ok(Transcriber { kind, stream })
    }

    /// Writes down the speech of `audio`, blocks of samples of one channel at 16 kHz. Events go to
    /// `each` as soon as they are known, until it breaks off; the last one is
    /// [`TranscriptEvent::End`].
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
            Decoder::Samples(network) => network.transcribe(audio, options, each),
            Decoder::Transducer(network) => {
                ByRow::Transducer(&**network).transcribe(audio, options, each)
            }
            Decoder::Ctc(network) => ByRow::Ctc(&**network).transcribe(audio, options, each),
            Decoder::Chat(network) => network.transcribe(audio, options, each),
        })
    }
}
