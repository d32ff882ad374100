//! Decoding of networks of samples with an attention decoder, which write the likeliest text of a
//! window and no times.

use std::ops::ControlFlow;

use mlx_rs::Array;
use mlx_rs::transforms::eval;
use mlxk_core::{Error, Facts, Kind, Result};
use mlxk_models::speech::{EncoderDecoder, Heard};
use mlxk_processor::Tokenizer;
use mlxk_processor::transcript::{Segment, TranscribeOptions, TranscriptEnd, TranscriptEvent};
use mlxk_tensor::cache::Sequences;
use mlxk_tensor::mlx;

use super::Each;
use super::clips::{RATE, listen};
use super::decode::compression_ratio;
use super::logits::{best, numbers};
use super::repeated::{repeated, text};
use super::windows::Windows;
use super::wishes::{Wish, refuse};

/// What no network of the kind can do.
const CANNOT: [Wish; 6] = [
    Wish::Translation,
    Wish::Prompt,
    Wish::Hotwords,
    Wish::Language,
    Wish::Words,
    Wish::Temperature,
];

/// Tokens of a second of speech, at most; more are a repetition. Source: the model cards of Moonshine.
const TOKENS: f64 = 6.5;
/// Seconds of a window; longer ones were rare in training.
const WINDOW: f64 = 30.0;

/// Network of samples with its vocabulary.
pub struct FromSamples {
    network: Box<dyn EncoderDecoder>,
    tokenizer: Tokenizer,
    /// Token that a text starts with.
    start: u32,
    on_cpu: bool,
}

/// Tokens of a window, and the mean of their log probabilities.
struct Written {
    tokens: Vec<u32>,
    avg_logprob: f32,
}

impl FromSamples {
    /// Network with the vocabulary of `facts`.
    ///
    /// # Errors
    /// If the tokenizer cannot be read, or config.json does not name the token that a text starts with.
    pub fn new(
        network: Box<dyn EncoderDecoder>,
        facts: &Facts,
        on_cpu: bool,
    ) -> Result<FromSamples> {
        let tokenizer = Tokenizer::read(facts)?;
        let stated = ["decoder_start_token_id", "bos_token_id"];
        let stated = stated.iter().find_map(|key| facts.config.get(key)?.as_u64());
        let size = network.sizes().vocabulary as u64;
        let start = stated.filter(|&start| start < size).ok_or_else(|| {
            let message = "missing field `decoder_start_token_id`, or one beyond the vocabulary";
            Error::new(Kind::InvalidModel, "config.json", message)
        })?;
        Ok(FromSamples { network, tokenizer, start: start as u32, on_cpu })
    }

    /// Writes down `audio`, blocks of samples at 16 kHz.
    ///
    /// # Errors
    /// If the audio cannot be read, if MLX fails, and if an option asks for what the network cannot
    /// do.
    pub fn transcribe(
        &self,
        audio: &mut dyn Iterator<Item = Result<Vec<f32>>>,
        options: &TranscribeOptions,
        each: Each,
    ) -> Result<()> {
        refuse(options, &CANNOT)?;
        let (mut segments, mut tokens) = (0, 0);
        let mut take = |start: usize, samples: &[f32]| {
            let seconds = |sample: usize| sample as f64 / RATE as f64;
            let time = seconds(start)..seconds(start + samples.len());
            let written = self.write(samples)?;
            tokens += written.tokens.len() as u64;
            let text = text(&self.tokenizer, &written.tokens, &[])?;
            let (end, avg_logprob) = (time.end, written.avg_logprob);
            if !text.trim().is_empty() {
                let text = format!(" {}", text.trim());
                let tokens = written.tokens;
                let id = segments;
                segments += 1;
                let compression_ratio = compression_ratio(&text);
                let segment = Segment {
                    id,
                    time,
                    text,
                    tokens,
                    avg_logprob,
                    compression_ratio,
                    ..Segment::default()
                };
                if each(TranscriptEvent::Segment(segment)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(each(TranscriptEvent::Progress(end)))
        };
        let mut windows = Windows::new(WINDOW, options.vad, &mut take);
        let samples = listen(audio, options, &mut windows)?;
        if let Some(samples) = samples {
            let duration = samples as f64 / RATE as f64;
            // The last event: there is nothing to break off.
            let _ = each(TranscriptEvent::End(TranscriptEnd { duration, tokens }));
        }
        Ok(())
    }

    /// Likeliest tokens of a window of samples.
    fn write(&self, samples: &[f32]) -> Result<Written> {
        let seconds = samples.len() as f64 / RATE as f64;
        let room = self.network.sizes().tokens.saturating_sub(1);
        let most = ((seconds * TOKENS) as usize).min(room).max(1);
        self.tokens(samples, most).map_err(mlx::failed)
    }

    fn tokens(&self, samples: &[f32], most: usize) -> mlx_rs::error::Result<Written> {
        let samples = Array::from_slice(samples, &[1, samples.len() as i32]);
        let heard = self.network.hear(&self.network.encode(&samples)?)?;
        eval(heard.layers.iter().flatten())?;
        let mut cache = self.network.cache();
        let (mut tokens, mut sum) = (Vec::new(), 0.0);
        let mut last = self.start;
        while tokens.len() < most {
            let mut sequences = Sequences::one(&mut cache, 1).at_once(self.on_cpu);
            let logits = self.next(last, &mut sequences, &heard)?;
            let (token, probability) = best(&logits);
            sum += f64::from(probability).ln();
            last = token as u32;
            if self.tokenizer.is_end(last) {
                break;
            }
            tokens.push(last);
            if let Some(once) = repeated(&tokens) {
                tokens.truncate(once);
                break;
            }
        }
        let avg_logprob = (sum / (tokens.len() + 1) as f64) as f32;
        Ok(Written { tokens, avg_logprob })
    }

    /// Logits of the token after `last`.
    fn next(
        &self,
        last: u32,
        sequences: &mut Sequences,
        heard: &Heard,
    ) -> mlx_rs::error::Result<Vec<f32>> {
        let ids = Array::from_slice(&[last], &[1, 1]);
        let h = self.network.forward(&ids, sequences, &[heard])?;
        numbers(&self.network.head(&h)?)
    }
}
