//! Decoding of language models that hear: a prompt with the features of a window, and the likeliest
//! answer.

use std::ops::ControlFlow;

use mlx_rs::Array;
use mlx_rs::transforms::eval;
use mlxk_core::{Error, Facts, Kind, Result};
use mlxk_models::language::Spliced;
use mlxk_models::speech::{Chat, ChatForm};
use mlxk_processor::Tokenizer;
use mlxk_processor::audio::{LogMel, Mel, MelOptions};
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

/// What no model of the kind can do.
const CANNOT: [Wish; 3] = [Wish::Translation, Wish::Words, Wish::Temperature];

/// Seconds of a window.
const WINDOW: f64 = 60.0;
/// Seconds that the model hears at least, with silence behind shorter ones.
const SHORTEST: usize = RATE;
/// Tokens of an answer: for a second of speech, and for what is before the speech.
const TOKENS: [f64; 2] = [15.0, 32.0];

/// Language model that hears, with its vocabulary.
pub struct Hearing {
    network: Chat,
    tokenizer: Tokenizer,
    mel: LogMel,
    on_cpu: bool,
}

/// Answer about a window.
struct Answer {
    tokens: Vec<u32>,
    avg_logprob: f32,
}

impl Hearing {
    /// Model with the vocabulary of `facts`.
    ///
    /// # Errors
    /// If the tokenizer cannot be read.
    pub fn new(network: Chat, facts: &Facts, on_cpu: bool) -> Result<Hearing> {
        let tokenizer = Tokenizer::read(facts)?;
        let mel = MelOptions { tail: 0, ..MelOptions::whisper(network.tower.bands()) };
        Ok(Hearing { network, tokenizer, mel: LogMel::new(&mel), on_cpu })
    }

    /// Writes down `audio`, blocks of samples at 16 kHz.
    ///
    /// # Errors
    /// If the audio cannot be read, if MLX fails, and if an option asks for what the model cannot do.
    pub fn transcribe(
        &self,
        audio: &mut dyn Iterator<Item = Result<Vec<f32>>>,
        options: &TranscribeOptions,
        each: Each,
    ) -> Result<()> {
        refuse(options, &CANNOT)?;
        let form = &self.network.form;
        let language = options.language.as_deref().map(|code| language(form, code)).transpose()?;
        let (mut segments, mut tokens) = (0, 0);
        let mut named: Option<String> = None;
        let mut take = |start: usize, samples: &[f32]| {
            let seconds = |sample: usize| sample as f64 / RATE as f64;
            let time = seconds(start)..seconds(start + samples.len());
            let (end, answer) = (time.end, self.answer(samples, options, language)?);
            tokens += answer.tokens.len() as u64;
            let written = text(&self.tokenizer, &answer.tokens, &form.language)?;
            let (heard, speech) = match language {
                Some(language) => (Some(language), written.trim()),
                None => parsed(form, &written),
            };
            if speech.is_empty() {
                return Ok(each(TranscriptEvent::Progress(end)));
            }
            if let Some(code) = heard.filter(|code| named.as_deref() != Some(*code)) {
                named = Some(code.to_owned());
                let event = TranscriptEvent::Language { code: code.into(), probability: None };
                if each(event).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            let text = format!(" {speech}");
            let Answer { tokens, avg_logprob } = answer;
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

    /// Tokens of the prompt about a window with `count` features, and the place of the first feature.
    fn prompt(
        &self,
        options: &TranscribeOptions,
        language: Option<&str>,
        count: usize,
    ) -> Result<(Vec<u32>, usize)> {
        let form = &self.network.form;
        let words = [&options.prompt, &options.hotwords].map(|words| words.as_deref());
        let words = words.into_iter().flatten().map(str::trim).filter(|words| !words.is_empty());
        let context: String = words.map(|words| format!("{words}\n")).collect();
        let before = format!("{}{context}{}", form.start, form.middle);
        let name = form.languages.iter().find(|(code, _)| Some(*code) == language);
        let [open, close] = form.language;
        let stated = name.map_or(String::new(), |(_, name)| format!("{open}{name}{close}"));
        let mut ids = self.tokenizer.encode_part(&before)?;
        let first = ids.len();
        ids.extend(std::iter::repeat_n(form.audio, count));
        ids.extend(self.tokenizer.encode_part(&format!("{}{stated}", form.end))?);
        Ok((ids, first))
    }

    /// Likeliest answer about a window of samples.
    fn answer(
        &self,
        samples: &[f32],
        options: &TranscribeOptions,
        language: Option<&str>,
    ) -> Result<Answer> {
        let mut padded = samples.to_vec();
        padded.resize(samples.len().max(SHORTEST), 0.0);
        let Mel { frames, bands, values } = self.mel.whole(&padded);
        let mel = Array::from_slice(&values, &[1, frames as i32, bands as i32]);
        let features = self.network.tower.encode(&mel).map_err(mlx::failed)?;
        let count = features.dim(0);
        let (ids, first) = self.prompt(options, language, count as usize)?;
        let first = first as i32;
        let features = Spliced { rows: first..first + count, features, deep: Vec::new() };
        let [by_second, before] = TOKENS;
        let most = (samples.len() as f64 / RATE as f64 * by_second + before) as usize;
        self.tokens(&ids, features, most).map_err(mlx::failed)
    }

    /// Up to `most` tokens after the prompt `ids`.
    fn tokens(&self, ids: &[u32], features: Spliced, most: usize) -> mlx_rs::error::Result<Answer> {
        let language = &self.network.language;
        let mut cache = language.cache();
        let (mut tokens, mut sum) = (Vec::new(), 0.0);
        let (mut next, mut spliced) = (ids.to_vec(), vec![features]);
        while tokens.len() < most {
            let rows = next.len() as i32;
            let inputs = language.embed(&Array::from_slice(&next, &[1, rows]), &spliced)?;
            let mut sequence = Sequences::one(&mut cache, rows).at_once(self.on_cpu);
            let h = language.forward(inputs, &mut sequence)?;
            let last = mlx::columns(&h, rows - 1..rows)?.contiguous()?;
            let (token, probability) = best(&numbers(&language.head(&last)?)?);
            eval(cache.arrays())?;
            sum += f64::from(probability).ln();
            let token = token as u32;
            if self.tokenizer.is_end(token) {
                break;
            }
            tokens.push(token);
            if let Some(once) = repeated(&tokens) {
                tokens.truncate(once);
                break;
            }
            (next, spliced) = (vec![token], Vec::new());
        }
        let avg_logprob = (sum / (tokens.len() + 1) as f64) as f32;
        Ok(Answer { tokens, avg_logprob })
    }
}

/// Code of the language that `name` means, a code or a name of a language.
fn language<'a>(form: &'a ChatForm, name: &str) -> Result<&'a str> {
    let same = |known: &str| known.eq_ignore_ascii_case(name);
    let mut known = form.languages.iter();
    match known.find(|(code, full)| same(code) || same(full)) {
        Some((code, _)) => Ok(code),
        None => {
            let codes: Vec<&str> = form.languages.iter().map(|(code, _)| *code).collect();
            let message = format!("the model does not know the language `{name}`");
            let hint = format!("it knows {}", codes.join(", "));
            Err(Error::new(Kind::Validation, "", message).hint(hint))
        }
    }
}

/// Language and speech of an answer that states the language first.
fn parsed<'a>(form: &ChatForm, answer: &'a str) -> (Option<&'a str>, &'a str) {
    let [open, close] = form.language;
    match answer.strip_prefix(open).and_then(|rest| rest.split_once(close)) {
        Some((name, speech)) => {
            let name = name.trim();
            let known = form.languages.iter().find(|(_, full)| full.eq_ignore_ascii_case(name));
            let code = known.map_or(name, |(code, _)| code);
            (Some(code).filter(|code| !code.is_empty() && *code != "None"), speech.trim())
        }
        None => (None, answer.trim()),
    }
}
