//! Decoding loop of models like Whisper: windows of 30 seconds, of which the times in the text say
//! where the next one starts. Source: `transcribe` of openai-whisper.

use std::ops::{ControlFlow, Range};

use mlxk_core::{Error, Kind, Result};
use mlxk_models::speech::{Heard, Input};
use mlxk_processor::transcript::{
    Segment, SpeechTask, TranscribeOptions, TranscriptEnd, TranscriptEvent,
};

use super::attach::attach;
use super::decode::{Attempt, Prompt, WindowDecoder, Written};
use super::frames::{Blocks, Frames};
use super::words::align;

/// Frames of a second.
const FRAMES: f64 = 100.0;
/// Frames of a step of times.
const STEP: usize = 2;
/// Seconds of a step of times.
const STEP_SECONDS: f64 = 0.02;
/// Temperature above which a text does not precede the next one.
const UNSURE: f32 = 0.5;

/// Model with an attention decoder, and the sizes of its windows.
pub struct Attention {
    /// Decoder of windows.
    pub decoder: WindowDecoder,
    /// True if the model can translate to English.
    translates: bool,
    bands: usize,
    frames: usize,
}

/// Receiver of events.
type Each<'a> = &'a mut dyn FnMut(TranscriptEvent) -> ControlFlow<()>;

impl Attention {
    /// Decoding with `decoder`. Errors if the network does not take log-mel spectrograms.
    pub fn new(decoder: WindowDecoder, translates: bool) -> Result<Attention> {
        match decoder.network.sizes().input {
            Input::Mel { bands, frames } => Ok(Attention { decoder, translates, bands, frames }),
            Input::Samples => Err(Error::unsupported("a network of samples cannot run yet")),
        }
    }

    /// Writes down the speech of `audio`, as [`Transcriber::transcribe`](super::Transcriber).
    pub fn transcribe(&self, audio: Blocks, options: &TranscribeOptions, each: Each) -> Result<()> {
        let mut state = self.start(options)?;
        let mut frames = Frames::new(audio, self.bands);
        let clips = clips(&options.clips);
        for clip in &clips {
            let mut seek = clip.start;
            while seek < clip.end {
                let end = frames.read(seek, clip.end.min(seek + self.frames))?;
                let count = end.saturating_sub(seek);
                if count == 0 {
                    break;
                }
                let mel = frames.window(seek, count, self.frames);
                let heard = self.decoder.hear(&mel, self.bands)?;
                if !state.named {
                    state.named = true;
                    if each(self.language(&heard, options, &mut state.prompt)?).is_break() {
                        return Ok(());
                    }
                }
                let window = Window { start: seek, count };
                let (segments, next) = self.window(&heard, &window, options, &mut state)?;
                seek = next.max(seek + 1);
                for segment in segments {
                    if each(TranscriptEvent::Segment(segment)).is_break() {
                        return Ok(());
                    }
                }
                if each(TranscriptEvent::Progress(seek as f64 / FRAMES)).is_break() {
                    return Ok(());
                }
            }
        }
        let end = TranscriptEnd { duration: frames.seconds(), tokens: state.tokens };
        // The last event: there is nothing to break off.
        let _ = each(TranscriptEvent::End(end));
        Ok(())
    }

    /// State before the first window. Errors if the model cannot do what is asked for.
    fn start(&self, options: &TranscribeOptions) -> Result<State> {
        let words = &self.decoder.vocabulary;
        let language = options.language.as_deref().map(|code| words.language(code)).transpose()?;
        let translate = options.task == SpeechTask::Translate;
        if translate && !self.translates {
            let message = "the model cannot translate: it writes speech in its own language only";
            return Err(Error::new(Kind::CapabilityNotSupported, "", message));
        }
        let encode = |text: &Option<String>| match text.as_deref().map(str::trim) {
            None | Some("") => Ok(Vec::new()),
            Some(text) => words.tokenizer.encode_part(&format!(" {text}")),
        };
        let language = language.flatten();
        Ok(State {
            prompt: Prompt {
                language,
                translate,
                timestamps: options.timestamps,
                ..Prompt::default()
            },
            named: false,
            before: encode(&options.prompt)?,
            hotwords: encode(&options.hotwords)?,
            spoken: 0.0,
            segments: 0,
            tokens: 0,
        })
    }

    /// The language: the one that `options` name, or else the likeliest one of what is heard. It is
    /// known from then on.
    fn language(
        &self,
        heard: &Heard,
        options: &TranscribeOptions,
        prompt: &mut Prompt,
    ) -> Result<TranscriptEvent> {
        let languages = &self.decoder.vocabulary.languages;
        if let Some(code) = &options.language {
            let code = code.to_lowercase();
            return Ok(TranscriptEvent::Language { code, probability: None });
        }
        let known = self.decoder.languages(heard)?;
        let likeliest = languages.iter().zip(known).max_by(|a, b| a.1.total_cmp(&b.1));
        let (code, probability) = match likeliest {
            Some((&(code, token), probability)) => {
                prompt.language = Some(token);
                (code, Some(probability))
            }
            None => (ENGLISH, None),
        };
        Ok(TranscriptEvent::Language { code: code.to_owned(), probability })
    }

    /// Writes a window: its segments, and the frame at which the next window starts.
    fn window(
        &self,
        heard: &Heard,
        window: &Window,
        options: &TranscribeOptions,
        state: &mut State,
    ) -> Result<(Vec<Segment>, usize)> {
        state.prompt.previous = state.previous(self.decoder.network.sizes().tokens);
        let written = self.written(heard, &state.prompt, options)?;
        state.tokens += written.tokens.len() as u64;
        if is_silence(&written, options) {
            return Ok((Vec::new(), window.start + window.count));
        }
        let (cuts, next) = self.cuts(&written, window);
        let mut next = next;
        let mut segments = Vec::new();
        for Cut { time, tokens } in cuts {
            let text = self.decoder.vocabulary.text(tokens);
            if time.is_empty() || text.trim().is_empty() {
                continue;
            }
            segments.push(Segment {
                seek: window.start as u64,
                time,
                text,
                tokens: tokens.to_vec(),
                temperature: written.temperature,
                avg_logprob: written.avg_logprob,
                compression_ratio: written.compression_ratio,
                no_speech_prob: written.no_speech_prob,
                ..Segment::default()
            });
        }
        if options.words {
            self.add_words(heard, window, &mut segments, state)?;
            let spoken = segments.last().map(|segment| segment.time.end);
            if let Some(spoken) = spoken.filter(|&end| end > window.start as f64 / FRAMES) {
                state.spoken = spoken;
                if !self.ends_once(&written.tokens) {
                    next = (spoken * FRAMES).round() as usize;
                }
            }
        }
        segments.retain(|segment| segment.time.start < segment.time.end);
        for segment in &mut segments {
            segment.id = state.segments;
            state.segments += 1;
            state.before.extend(&segment.tokens);
        }
        if !options.condition || written.temperature > UNSURE {
            state.before.clear();
        }
        Ok((segments, next))
    }

    /// Gives the `segments` of a window their words, with times.
    fn add_words(
        &self,
        heard: &Heard,
        window: &Window,
        segments: &mut [Segment],
        state: &State,
    ) -> Result<()> {
        let words = &self.decoder.vocabulary;
        let spoken = |segment: &Segment| -> Vec<u32> {
            segment.tokens.iter().copied().filter(|&token| token < words.end).collect()
        };
        let tokens: Vec<Vec<u32>> = segments.iter().map(spoken).collect();
        let counts: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let language = state.prompt.language;
        let code = words.languages.iter().find(|(_, token)| Some(*token) == language);
        let spaced = code.is_none_or(|(code, _)| !UNSPACED.contains(code));
        let timed =
            align(&self.decoder, heard, &state.prompt, &tokens.concat(), window.count, spaced)?;
        attach(segments, &counts, timed, window.start as f64 / FRAMES, state.spoken);
        Ok(())
    }

    /// True if a text ends with a single time, after which nothing is heard in the window.
    fn ends_once(&self, tokens: &[u32]) -> bool {
        let is_time = |&token: &u32| self.decoder.vocabulary.is_time(token);
        matches!(tokens, [.., before, last] if is_time(last) && !is_time(before))
    }

    /// What is written at the first temperature at which it is good enough, or else at the last one.
    fn written(
        &self,
        heard: &Heard,
        prompt: &Prompt,
        options: &TranscribeOptions,
    ) -> Result<Written> {
        let mut written = None;
        for &temperature in
            options.temperatures.iter().chain(options.temperatures.is_empty().then_some(&0.0))
        {
            let most = self.decoder.network.sizes().tokens / 2;
            let attempt = Attempt { temperature, seed: options.seed.unwrap_or_default(), most };
            let text = self.decoder.decode(heard, prompt, attempt)?;
            let good = is_good(&text, options);
            written = Some(text);
            if good {
                break;
            }
        }
        written.ok_or_else(|| Error::internal("no temperature"))
    }

    /// Cuts what is written at its times, and tells the frame at which the next window starts.
    fn cuts<'w>(&self, written: &'w Written, window: &Window) -> (Vec<Cut<'w>>, usize) {
        let words = &self.decoder.vocabulary;
        let tokens = written.tokens.as_slice();
        let is_time = |at: usize| words.is_time(tokens[at]);
        let steps = |token: u32| (token - words.time) as usize;
        let start = window.start as f64 / FRAMES;
        let time = |token: u32| start + steps(token) as f64 * STEP_SECONDS;
        let end = window.start + window.count;
        let count = tokens.len();
        let pairs: Vec<usize> = (1..count).filter(|&at| is_time(at) && is_time(at - 1)).collect();
        let single = self.ends_once(tokens);
        let Some(&last) = pairs.last() else {
            // A time in the text other than the first moment is where the speech ends.
            let ended = tokens.iter().rev().find(|&&token| words.is_time(token));
            let length = match ended.filter(|&&token| token != words.time) {
                Some(&token) => steps(token) as f64 * STEP_SECONDS,
                None => window.count as f64 / FRAMES,
            };
            return (vec![Cut { time: start..start + length, tokens }], end);
        };
        let ends = pairs.iter().copied().chain(single.then_some(count));
        let mut from = 0;
        let cuts = ends.map(|to| {
            let tokens = &tokens[from..to];
            from = to;
            // A part may begin or end with text if the model broke its rules off.
            let edge = |token: Option<&u32>| token.filter(|&&token| words.is_time(token)).copied();
            let first = edge(tokens.first()).map_or(start, time);
            let last = edge(tokens.last()).map_or(first, time);
            Cut { time: first..last, tokens }
        });
        let cuts = cuts.collect();
        let next = match single {
            true => end,
            false => window.start + steps(tokens[last - 1]) * STEP,
        };
        (cuts, next)
    }
}

/// Code of the language of models that know no other.
const ENGLISH: &str = "en";
/// Languages that put no spaces between words.
const UNSPACED: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];

/// Window of the audio, in frames.
struct Window {
    start: usize,
    count: usize,
}

/// Part of what is written between two times, which it includes.
struct Cut<'w> {
    time: Range<f64>,
    tokens: &'w [u32],
}

/// State from window to window.
struct State {
    prompt: Prompt,
    /// True once the language is known and told.
    named: bool,
    /// Tokens of the text before the window.
    before: Vec<u32>,
    /// Tokens of the words that precede each window.
    hotwords: Vec<u32>,
    /// End of the speech so far, in seconds.
    spoken: f64,
    /// Number of segments so far.
    segments: u64,
    /// Number of tokens so far.
    tokens: u64,
}

impl State {
    /// Tokens that precede the next window, of which a text of `most` tokens has room for half.
    fn previous(&self, most: usize) -> Vec<u32> {
        let room = (most / 2).saturating_sub(1);
        let hotwords = &self.hotwords[..self.hotwords.len().min(room)];
        let rest = room - hotwords.len();
        [hotwords, &self.before[self.before.len().saturating_sub(rest)..]].concat()
    }
}

/// True if a text is no repetition and likely enough, or if there is no speech to write down.
fn is_good(written: &Written, options: &TranscribeOptions) -> bool {
    let repeats =
        options.compression_ratio_threshold.is_some_and(|most| written.compression_ratio > most);
    let unlikely = options.logprob_threshold.is_some_and(|least| written.avg_logprob < least);
    let silent = options.no_speech_threshold.is_some_and(|most| written.no_speech_prob > most);
    silent && unlikely || !repeats && !unlikely
}

/// True if there is no speech, and what is written all the same is not likely.
fn is_silence(written: &Written, options: &TranscribeOptions) -> bool {
    let silent = options.no_speech_threshold.is_some_and(|most| written.no_speech_prob > most);
    let likely = options.logprob_threshold.is_some_and(|least| written.avg_logprob > least);
    silent && !likely
}

/// Clips in frames, in their order; all of the audio if there are none.
fn clips(clips: &[Range<f64>]) -> Vec<Range<usize>> {
    let frames = |seconds: f64| (seconds * FRAMES).round() as usize;
    match clips {
        [] => vec![0..usize::MAX],
        clips => clips.iter().map(|clip| frames(clip.start)..frames(clip.end)).collect(),
    }
}
