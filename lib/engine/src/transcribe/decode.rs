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
    /// Ratio of the length of all that was written to its length when compressed by zlib; of a loop,
    /// the text has one round only.
    pub compression_ratio: f32,
    /// Temperature of the attempt.
    pub temperature: f32,
}

/// Samples of which the likeliest is taken at a temperature above 0.
const SAMPLES: u64 = 5;

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
        let mut written = self.decode_all(&[heard], prompt, attempt)?;
        written.pop().ok_or_else(|| Error::internal("nothing was written"))
    }

    /// Writes what is heard in each of several windows, all at once.
    ///
    /// # Errors
    /// If the network fails, or a window is no input of it.
    pub fn decode_all(
        &self,
        heard: &[&Heard],
        prompt: &Prompt,
        attempt: Attempt,
    ) -> Result<Vec<Written>> {
        let rules = Rules { vocabulary: &self.vocabulary, timestamps: prompt.timestamps };
        let start = self.start(prompt);
        let room = self.network.sizes().tokens.saturating_sub(start.len()).min(attempt.most);
        let (mut texts, silences) = self.begin(heard, &start, attempt)?;
        for number in 0..room {
            for text in texts.iter_mut().filter(|text| !text.ended) {
                text.push(&rules, attempt, number as u64)?;
            }
            let mut open: Vec<&mut Text> = texts.iter_mut().filter(|text| !text.ended).collect();
            if open.is_empty() || number + 1 == room {
                break;
            }
            let last: Vec<u32> =
                open.iter().filter_map(|text| text.tokens.last().copied()).collect();
            let to: Vec<&Heard> = open.iter().map(|text| heard[text.window]).collect();
            let rows: Vec<usize> = (0..open.len()).collect();
            let logits = self.run(|| {
                let caches = open.iter_mut().map(|text| (&mut text.cache, 1)).collect();
                self.logits(&self.forward(&last, caches, &to)?, &rows)
            })?;
            open.iter_mut().zip(logits).for_each(|(text, logits)| text.logits = logits);
        }
        let mut texts = texts.into_iter().peekable();
        let best = silences.into_iter().enumerate().map(|(window, no_speech_prob)| {
            let own = std::iter::from_fn(|| texts.next_if(|text| text.window == window));
            let best = own.max_by(|a, b| a.mean().total_cmp(&b.mean()));
            let best = best.ok_or_else(|| Error::internal("nothing was written"))?;
            Ok(self.written(best, no_speech_prob, attempt.temperature))
        });
        best.collect()
    }

    /// Texts of windows after the tokens `start`, one of each window, or several to choose among; and
    /// the probability of each window that it has no speech.
    fn begin(
        &self,
        heard: &[&Heard],
        start: &[u32],
        attempt: Attempt,
    ) -> Result<(Vec<Text>, Vec<f32>)> {
        let samples = if attempt.temperature > 0.0 { SAMPLES } else { 1 };
        let place = start.iter().position(|&token| token == self.vocabulary.start).unwrap_or(0);
        let mut caches: Vec<Cache> = heard.iter().map(|_| self.network.cache()).collect();
        let length = start.len();
        let firsts = (0..heard.len()).map(|window| window * length);
        let rows: Vec<usize> = firsts.flat_map(|at| [at + place, at + length - 1]).collect();
        let logits = self.run(|| {
            let sequences = caches.iter_mut().map(|cache| (cache, length as i32)).collect();
            let h = self.forward(&start.repeat(heard.len()), sequences, heard)?;
            self.logits(&h, &rows)
        })?;
        let mut logits = logits.into_iter();
        let (mut texts, mut silences) = (Vec::new(), Vec::new());
        for (window, cache) in caches.into_iter().enumerate() {
            let both = logits.next().zip(logits.next());
            let (at_start, next) = both.ok_or_else(|| Error::internal("logits are missing"))?;
            let silence = at_start.get(self.vocabulary.no_speech as usize);
            silences.push(silence.map_or(0.0, |logit| (logit - log_sum(&at_start)).exp()));
            texts.extend((0..samples).map(|sample| Text {
                window,
                sample,
                cache: cache.clone(),
                logits: next.clone(),
                tokens: Vec::new(),
                sum: 0.0,
                ended: false,
            }));
        }
        Ok((texts, silences))
    }

    /// What was written, in numbers.
    fn written(&self, text: Text, no_speech_prob: f32, temperature: f32) -> Written {
        let Text { mut tokens, sum, .. } = text;
        let (count, spoken) = (tokens.len(), self.vocabulary.text(&tokens).trim().to_owned());
        if let Some(once) = looped(&tokens) {
            tokens.truncate(once);
        }
        Written {
            avg_logprob: sum / (count + 1) as f32,
            compression_ratio: compression_ratio(&spoken),
            text: self.vocabulary.text(&tokens).trim().to_owned(),
            tokens,
            no_speech_prob,
            temperature,
        }
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
struct Text {
    /// Number of the window.
    window: usize,
    /// Number of the text among those of the window.
    sample: u64,
    cache: Cache,
    /// Logits [vocabulary] of the next token.
    logits: Vec<f32>,
    tokens: Vec<u32>,
    /// Sum of the log probabilities of the tokens and the end.
    sum: f32,
    ended: bool,
}

impl Text {
    /// Writes token number `number`.
    fn push(&mut self, rules: &Rules, attempt: Attempt, number: u64) -> Result<()> {
        rules.apply(&mut self.logits, &self.tokens);
        let sampling = Sampling {
            temperature: attempt.temperature,
            seed: attempt.seed.wrapping_add(self.sample),
            logprobs: Some(0),
            ..Sampling::GREEDY
        };
        let (recent, tokens, allowed) = (&[], &[], None);
        let draw = Draw { sampling: &sampling, recent, tokens, number, allowed };
        let chosen = host::choose(&self.logits, &draw);
        let chosen = chosen.and_then(|token| Some((token.id, token.logprob?)));
        let finite = |(_, logprob): &(u32, f32)| logprob.is_finite();
        let (token, logprob) = chosen
            .filter(finite)
            .ok_or_else(|| Error::new(Kind::Execution, "", "the model's logits are not finite"))?;
        self.sum += logprob;
        self.ended = token == rules.vocabulary.end;
        if !self.ended {
            self.tokens.push(token);
            // Nothing else comes after that.
            self.ended = looped(&self.tokens).is_some();
        }
        Ok(())
    }

    /// Mean log probability of the tokens.
    fn mean(&self) -> f32 {
        self.sum / self.tokens.len().max(1) as f32
    }
}

/// Number of tokens that are left if those at the end, a loop of many rounds, are said once.
fn looped(tokens: &[u32]) -> Option<usize> {
    /// Longest round.
    const ROUND: usize = 24;
    /// Tokens that are no chance any more.
    const MANY: usize = 64;
    (1..=ROUND.min(tokens.len())).find_map(|round| {
        let pairs = tokens.iter().rev().zip(tokens.iter().rev().skip(round));
        let again = pairs.take_while(|(token, before)| token == before).count();
        (again >= MANY).then(|| tokens.len() - again)
    })
}

/// Ratio of the length of `text` to its length when compressed.
pub fn compression_ratio(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    text.len() as f32 / compressed.map_or(1, |bytes| bytes.len().max(1)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_said_once() {
        let said = |round: &[u32], times: usize| [&[1, 2], &*round.repeat(times)].concat();
        assert_eq!(looped(&said(&[7], 65)), Some(3));
        assert_eq!(looped(&said(&[7, 8, 9], 30)), Some(5));
        assert_eq!(looped(&said(&[7, 8, 9], 10)), None);
        assert_eq!(looped(&[]), None);
    }

    #[test]
    fn repetitions_are_compressed_well() {
        assert!(compression_ratio("And so my fellow Americans ask not") < 1.1);
        assert!(compression_ratio(&"Thank you. ".repeat(20)) > 5.0);
        assert_eq!(compression_ratio(""), 0.0);
    }
}
