//! Decoding of one window: tokens of a language, a task and the text before it, greedily or sampled.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use mlx_rs::error::Exception;
use mlx_rs::transforms::eval;
use mlx_rs::{Array, Stream, with_stream};
use mlxk_core::{Error, Kind, Result};
use mlxk_models::speech::{EncoderDecoder, Heard};
use mlxk_processor::Sampling;
use mlxk_tensor::cache::{Cache, Sequences};
use mlxk_tensor::mlx;

use super::rules::{Rules, log_sum};
use super::vocabulary::Vocabulary;
use crate::forward::ids;
use crate::sample::{Draw, host};

/// Network, its vocabulary, and the stream on which it works.
pub struct WindowDecoder {
    /// The network.
    pub network: Box<dyn EncoderDecoder>,
    /// Tokens of the model.
    pub vocabulary: Vocabulary,
    /// Layers and heads of the decoder whose attention to the audio follows the words.
    pub alignment_heads: Vec<[usize; 2]>,
    /// Stream on which all work is queued.
    pub stream: Stream,
    /// True if the network has the form for a CPU.
    pub on_cpu: bool,
}

/// What precedes the tokens of a window, and what they may be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Tokens of the text before the window.
    pub previous: Vec<u32>,
    /// Token of the language, if the model knows several.
    pub language: Option<u32>,
    /// True if the speech is written in English.
    pub translate: bool,
    /// True if times are written.
    pub timestamps: bool,
}

/// Ways to decode a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attempt {
    /// Temperature; at 0 the likeliest tokens are taken.
    pub temperature: f32,
    /// Seed of the samples.
    pub seed: u64,
    /// Most tokens to write.
    pub most: usize,
}

/// What was written of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Tokens, without the end.
    pub tokens: Vec<u32>,
    /// Text of the tokens.
    pub text: String,
    /// Mean of the log probabilities of the tokens and the end.
    pub avg_logprob: f32,
    /// Probability that the window has no speech.
    pub no_speech_prob: f32,
    /// Ratio of the length of the text to its length when compressed by zlib.
    pub compression_ratio: f32,
    /// Temperature of the attempt.
    pub temperature: f32,
}

/// Samples of which the likeliest is taken at a temperature above 0.
const SAMPLES: usize = 5;

impl WindowDecoder {
    /// What the decoder attends to in a window of frames [frames, bands], one after another.
    ///
    /// # Errors
    /// If the network fails.
    pub fn hear(&self, mel: &[f32], bands: usize) -> Result<Heard> {
        let frames = (mel.len() / bands) as i32;
        self.run(|| {
            let mel = Array::from_slice(mel, &[1, frames, bands as i32]);
            let heard = self.network.hear(&self.network.encode(&mel)?)?;
            eval(heard.layers.iter().flatten())?;
            Ok(heard)
        })
    }

    /// Probabilities of the languages in what is heard, by their order in the vocabulary.
    ///
    /// # Errors
    /// If the network fails.
    pub fn languages(&self, heard: &Heard) -> Result<Vec<f32>> {
        let logits = self.run(|| {
            let mut cache = self.network.cache();
            let start = [self.vocabulary.start];
            let h = self.forward(&start, vec![(&mut cache, 1)], &[heard])?;
            self.logits(&h, &[0])
        })?;
        let all: Vec<f32> =
            self.vocabulary.languages.iter().map(|(_, token)| logits[0][*token as usize]).collect();
        let sum = log_sum(&all);
        Ok(all.iter().map(|logit| (logit - sum).exp()).collect())
    }

    /// Tokens with which the decoder starts: the text before the window, and the request.
    pub fn start(&self, prompt: &Prompt) -> Vec<u32> {
        let words = &self.vocabulary;
        let mut tokens = Vec::new();
        if !prompt.previous.is_empty() {
            tokens.push(words.previous);
            tokens.extend(&prompt.previous);
        }
        tokens.extend(self.request(prompt));
        if !prompt.timestamps {
            tokens.push(words.no_timestamps);
        }
        tokens
    }

    /// Tokens of the request without that for times: the start, the language and the task.
    pub fn request(&self, prompt: &Prompt) -> Vec<u32> {
        let words = &self.vocabulary;
        let task = if prompt.translate { words.translate } else { words.transcribe };
        let language = prompt.language.map(|language| [language, task]);
        [words.start].into_iter().chain(language.into_iter().flatten()).collect()
    }

    /// Writes what is heard.
    ///
    /// # Errors
    /// If the network fails, or computes no numbers.
    pub fn decode(&self, heard: &Heard, prompt: &Prompt, attempt: Attempt) -> Result<Written> {
        let rules = Rules { vocabulary: &self.vocabulary, timestamps: prompt.timestamps };
        let start = self.start(prompt);
        let mut texts = vec![Text::default(); if attempt.temperature > 0.0 { SAMPLES } else { 1 }];
        let mut first = self.network.cache();
        let place = start.iter().position(|&token| token == self.vocabulary.start).unwrap_or(0);
        let logits = self.run(|| {
            let h = self.forward(&start, vec![(&mut first, start.len() as i32)], &[heard])?;
            self.logits(&h, &[place, start.len() - 1])
        })?;
        let [at_start, next] = logits.try_into().map_err(|_| Error::execution("no logits"))?;
        let silence = at_start.get(self.vocabulary.no_speech as usize).copied();
        let no_speech_prob = silence.map_or(0.0, |logit| (logit - log_sum(&at_start)).exp());
        let mut caches: Vec<Cache> = texts.iter().map(|_| first.clone()).collect();
        let mut logits = vec![next; texts.len()];
        drop(first);
        let room = self.network.sizes().tokens.saturating_sub(start.len());
        for number in 0..attempt.most.min(room) {
            let open: Vec<usize> = (0..texts.len()).filter(|&at| !texts[at].ended).collect();
            for (&at, logits) in open.iter().zip(&mut logits) {
                let seed = attempt.seed.wrapping_add(at as u64);
                let draw = Attempt { seed, ..attempt };
                texts[at].push(logits, &rules, draw, number as u64)?;
            }
            let open: Vec<usize> = (0..texts.len()).filter(|&at| !texts[at].ended).collect();
            if open.is_empty() || number + 1 == attempt.most.min(room) {
                break;
            }
            let last: Vec<u32> =
                open.iter().filter_map(|&at| texts[at].tokens.last().copied()).collect();
            let ended = texts.iter().map(|text| text.ended);
            let going = caches.iter_mut().zip(ended).filter(|(_, ended)| !ended);
            let going = going.map(|(cache, _)| (cache, 1)).collect();
            let rows: Vec<usize> = (0..open.len()).collect();
            logits = self.run(|| {
                let h = self.forward(&last, going, &vec![heard; open.len()])?;
                self.logits(&h, &rows)
            })?;
        }
        let better = |a: &Text, b: &Text| a.mean().total_cmp(&b.mean());
        let best = texts.into_iter().max_by(better).unwrap_or_default();
        let text = self.vocabulary.text(&best.tokens).trim().to_owned();
        Ok(Written {
            avg_logprob: best.sum / (best.tokens.len() + 1) as f32,
            compression_ratio: compression_ratio(&text),
            text,
            tokens: best.tokens,
            no_speech_prob,
            temperature: attempt.temperature,
        })
    }

    /// Runs `work` on the stream of the model.
    pub fn run<T>(&self, work: impl FnOnce() -> std::result::Result<T, Exception>) -> Result<T> {
        with_stream(&self.stream, work).map_err(mlx::failed)
    }

    /// Hidden states [1, rows, hidden] of `tokens`, the next ones of `sequences`.
    fn forward(
        &self,
        tokens: &[u32],
        sequences: Vec<(&mut Cache, i32)>,
        heard: &[&Heard],
    ) -> std::result::Result<Array, Exception> {
        let mut sequences = Sequences::new(sequences).at_once(self.on_cpu);
        self.network.forward(&ids(tokens), &mut sequences, heard)
    }

    /// Logits [vocabulary] after each of `rows` of `h` [1, rows, hidden].
    pub(super) fn logits(
        &self,
        h: &Array,
        rows: &[usize],
    ) -> std::result::Result<Vec<Vec<f32>>, Exception> {
        let rows: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let h = h.take_axis(Array::from_slice(&rows, &[rows.len() as i32]), 1)?;
        let logits = self.network.head(&h.contiguous()?)?.as_type::<f32>()?;
        let size = logits.dim(2) as usize;
        let all = logits.to_vec_exact::<f32>().map_err(|e| Exception::custom(e.to_string()))?;
        Ok(all.chunks_exact(size).map(<[f32]>::to_vec).collect())
    }
}

/// Text that is being written.
#[derive(Clone, Debug, Default)]
struct Text {
    tokens: Vec<u32>,
    /// Sum of the log probabilities of the tokens and the end.
    sum: f32,
    ended: bool,
}

impl Text {
    /// Writes a token by `logits`.
    fn push(
        &mut self,
        logits: &mut [f32],
        rules: &Rules,
        draw: Attempt,
        number: u64,
    ) -> Result<()> {
        rules.apply(logits, &self.tokens);
        let sampling = Sampling {
            temperature: draw.temperature,
            seed: draw.seed,
            logprobs: Some(0),
            ..Sampling::GREEDY
        };
        let (recent, tokens, allowed) = (&[], &[], None);
        let draw = Draw { sampling: &sampling, recent, tokens, number, allowed };
        let chosen = host::choose(logits, &draw);
        let chosen = chosen.and_then(|token| Some((token.id, token.logprob?)));
        let finite = |(_, logprob): &(u32, f32)| logprob.is_finite();
        let (token, logprob) = chosen
            .filter(finite)
            .ok_or_else(|| Error::new(Kind::Execution, "", "the model's logits are not finite"))?;
        self.sum += logprob;
        match token == rules.vocabulary.end {
            true => self.ended = true,
            false => self.tokens.push(token),
        }
        Ok(())
    }

    /// Mean log probability of the tokens.
    fn mean(&self) -> f32 {
        self.sum / self.tokens.len().max(1) as f32
    }
}

/// Ratio of the length of `text` to its length when compressed.
pub fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    text.len() as f32 / compressed.map_or(1, |bytes| bytes.len().max(1)) as f32
}
