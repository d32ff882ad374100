//! Transcription by networks that decide for each row of an encoder: audio of any length in parts
//! that overlap.

use std::ops::ControlFlow;

use mlx_rs::Array;
use mlxk_core::Result;
use mlxk_models::speech::nemo::{Nemo, Spectrum};
use mlxk_models::speech::{Ctc, Transducer};
use mlxk_processor::audio::{LogMel, Mel, MelOptions};
use mlxk_processor::transcript::{TranscribeOptions, TranscriptEnd, TranscriptEvent};

use super::clips::{Listener, RATE, listen};
use super::pieces::Pieces;
use super::timed::{TimedToken, join};
use super::wishes::{Wish, refuse};
use super::{Each, ctc, transducer};

/// Seconds of a part. Attention takes memory with the square of it.
const PART: f64 = 120.0;
/// Seconds that two parts share.
const SHARED: f64 = 15.0;

/// What no network of the kind can do. Options of silence and of repetitions change nothing: silence
/// gives no tokens, and rows do not repeat themselves.
const CANNOT: [Wish; 5] =
    [Wish::Translation, Wish::Prompt, Wish::Hotwords, Wish::Language, Wish::Temperature];

/// Network that decides for each row of its encoder.
#[derive(Clone, Copy)]
pub enum ByRow<'a> {
    /// Knowing the tokens before.
    Transducer(&'a dyn Transducer),
    /// For itself.
    Ctc(&'a dyn Ctc),
}

impl ByRow<'_> {
    /// Writes down `audio`, blocks of samples at 16 kHz, and gives the events to `each` until it
    /// breaks.
    ///
    /// # Errors
    /// If the audio cannot be read, if MLX fails, and if an option asks for what the network cannot
    /// do.
    pub fn transcribe(
        self,
        audio: &mut dyn Iterator<Item = Result<Vec<f32>>>,
        options: &TranscribeOptions,
        each: Each,
    ) -> Result<()> {
        refuse(options, &CANNOT)?;
        let mut parts = Parts::new(self, options, each);
        let Some(samples) = listen(audio, options, &mut parts)? else { return Ok(()) };
        let duration = samples as f64 / RATE as f64;
        let end = TranscriptEnd { duration, tokens: parts.written };
        // The last event: there is nothing to break off.
        let _ = (parts.each)(TranscriptEvent::End(end));
        Ok(())
    }

    fn nemo(&self) -> &Nemo {
        match self {
            ByRow::Transducer(network) => network.nemo(),
            ByRow::Ctc(network) => network.nemo(),
        }
    }

    /// Tokens of a spectrum [1, frames, bands].
    fn decode(self, mel: &Array) -> Result<Vec<TimedToken>> {
        match self {
            ByRow::Transducer(network) => transducer::decode(network, mel),
            ByRow::Ctc(network) => ctc::decode(network, mel),
        }
    }
}

/// Options of the spectrum of a network.
pub fn mel_options(spectrum: &Spectrum) -> MelOptions {
    let &Spectrum { bands, fft, window, hop, preemphasis } = spectrum;
    let preemphasis = (preemphasis > 0.0).then_some(preemphasis);
    MelOptions { n_fft: fft, window, hop, preemphasis, ..MelOptions::nemo(bands) }
}

/// Recording that is heard part after part. Rows are counted from the start of a clip.
struct Parts<'a> {
    network: ByRow<'a>,
    options: &'a TranscribeOptions,
    each: Each<'a>,
    mel: LogMel,
    /// Samples of a row of the encoder.
    row: usize,
    /// Sample of the recording at which the clip begins.
    origin: usize,
    /// Samples that parts still need.
    samples: Vec<f32>,
    /// Row at which `samples` begin.
    start: usize,
    /// Rows from `start` on that the part before had too.
    shared: usize,
    /// Tokens that no segment has yet.
    tokens: Vec<TimedToken>,
    /// Number of segments so far.
    segments: u64,
    /// Number of tokens of the segments so far.
    written: u64,
}

impl<'a> Parts<'a> {
    fn new(network: ByRow<'a>, options: &'a TranscribeOptions, each: Each<'a>) -> Parts<'a> {
        let nemo = network.nemo();
        Parts {
            mel: LogMel::new(&mel_options(&nemo.spectrum)),
            row: (nemo.row * RATE as f64).round() as usize,
            network,
            options,
            each,
            origin: 0,
            samples: Vec::new(),
            start: 0,
            shared: 0,
            tokens: Vec::new(),
            segments: 0,
            written: 0,
        }
    }

    /// Seconds of the recording before the sample `count` of `samples`.
    fn seconds(&self, count: usize) -> f64 {
        (self.origin + self.start * self.row + count) as f64 / RATE as f64
    }

    /// Decodes the first `count` samples, and joins their tokens to those before.
    fn decode(&mut self, count: usize) -> Result<()> {
        // Less than a frame is no sound.
        if count < self.network.nemo().spectrum.hop {
            return Ok(());
        }
        let Mel { frames, bands, values } = self.mel.whole(&self.samples[..count]);
        let mel = Array::from_slice(&values, &[1, frames as i32, bands as i32]);
        let mut tokens = self.network.decode(&mel)?;
        let pieces = pieces(self.network.nemo());
        tokens.retain(|token| !pieces.is_special(token));
        for token in &mut tokens {
            token.rows = token.rows.start + self.start..token.rows.end + self.start;
        }
        join(&mut self.tokens, tokens, &(self.start..self.start + self.shared));
        Ok(())
    }

    /// Gives the segments that are complete: those before the samples that the next part has too, or
    /// all if the clip has `ended`.
    fn write(&mut self, ended: bool) -> ControlFlow<()> {
        let network = self.network;
        let pieces = pieces(network.nemo());
        let times = [self.origin as f64 / RATE as f64, self.seconds(self.samples.len())];
        loop {
            let sure = match ended {
                true => self.tokens.len(),
                false => self.tokens.partition_point(|token| token.rows.start < self.start),
            };
            let sure = &self.tokens[..sure];
            let count = match self.options.timestamps {
                true => pieces.sentence(sure, ended),
                false => Some(sure.len()).filter(|&count| count > 0),
            };
            let Some(count) = count else { break };
            let mut segment = pieces.segment(&sure[..count], times, self.options.words);
            segment.id = self.segments;
            self.segments += 1;
            self.written += count as u64;
            self.tokens.drain(..count);
            (self.each)(TranscriptEvent::Segment(segment))?;
        }
        let heard = self.seconds(if ended { self.samples.len() } else { 0 });
        (self.each)(TranscriptEvent::Progress(heard))
    }
}

impl Listener for Parts<'_> {
    fn begin(&mut self, sample: usize) {
        (self.origin, self.start, self.shared) = (sample, 0, 0);
        self.samples.clear();
        self.tokens.clear();
    }

    fn hear(&mut self, samples: &[f32]) -> Result<ControlFlow<()>> {
        let rows = |seconds: f64| (seconds * RATE as f64) as usize / self.row;
        let (part, shared) = (rows(PART), rows(SHARED));
        self.samples.extend_from_slice(samples);
        while self.samples.len() > part * self.row {
            self.decode(part * self.row)?;
            self.samples.drain(..(part - shared) * self.row);
            self.start += part - shared;
            self.shared = shared;
            if self.write(false).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn end(&mut self) -> Result<ControlFlow<()>> {
        self.decode(self.samples.len())?;
        Ok(self.write(true))
    }
}

fn pieces(nemo: &Nemo) -> Pieces<'_> {
    Pieces { vocabulary: &nemo.vocabulary, row: nemo.row }
}
