//! Decoding loop of models like Whisper: windows of 30 seconds, of which the times in the text say
//! where the next one starts. Source: `transcribe` of openai-whisper.

use std::ops::{ControlFlow, Range};

use mlxk_core::{Error, Kind, Result};
use mlxk_models::speech::{Heard, Input};
use mlxk_processor::transcript::{
    Segment, SpeechTask, TranscribeOptions, TranscriptEnd, TranscriptEvent,
};

use super::attach::attach;
use super::cuts::{Cut, FRAMES, Window, cuts, ends_once, parted};
use super::decode::{Attempt, Prompt, WindowDecoder, Written};
use super::frames::{Blocks, Frames};
use super::voices::{Clock, Voices};

/// Temperature above which a text does not precede the next one, as one that is not good enough.
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
        if !options.vad {
            return self.hear(audio, &clips(&options.clips), options, &mut state, each);
        }
        let clock = Clock::default();
        state.clock = Some(clock.clone());
        let mut voices = Voices::new(audio, &options.clips, clock);
        if options.batch > 1 && !options.condition {
            return self.hear_in_batches(&mut voices, options, &mut state, each);
        }
        self.hear(&mut voices, &clips(&[]), options, &mut state, each)
    }

    /// Writes down the speech in `clips`, in frames, of `audio`.
    fn hear(
        &self,
        audio: Blocks,
        clips: &[Range<usize>],
        options: &TranscribeOptions,
        state: &mut State,
        each: Each,
    ) -> Result<()> {
        let mut frames = Frames::new(audio, self.bands);
        for clip in clips {
            let mut seek = clip.start;
            while seek < clip.end {
                let end = frames.read(seek, clip.end.min(seek + self.frames))?;
                let count = end.saturating_sub(seek);
                if count == 0 {
                    break;
                }
                let mel = frames.window(seek, count, self.frames);
                let heard = self.decoder.hear(&mel, self.bands)?;
                if self.name(&heard, options, state, each)?.is_break() {
                    return Ok(());
                }
                let window = Window { start: seek, count };
                state.prompt.previous = state.previous(self.decoder.network.sizes().tokens);
                let written = self.written(&heard, &state.prompt, options)?;
                let (segments, next) = self.segments(written, &heard, &window, options, state)?;
                seek = next.max(seek + 1);
                if tell(segments, state.heard(seek as f64 / FRAMES), each).is_break() {
                    return Ok(());
                }
            }
        }
        let duration = state.clock.as_ref().map_or(frames.seconds(), Clock::heard);
        let end = TranscriptEnd { duration, tokens: state.tokens };
        // The last event: there is nothing to break off.
        let _ = each(TranscriptEvent::End(end));
        Ok(())
    }

    /// Writes down the speech of `audio`, several windows at once, each of which ends where a pause was
    /// left out if there is one.
    fn hear_in_batches(
        &self,
        audio: Blocks,
        options: &TranscribeOptions,
        state: &mut State,
        each: Each,
    ) -> Result<()> {
        let mut frames = Frames::new(audio, self.bands);
        let mut seek = 0;
        loop {
            let mut windows = Vec::new();
            while windows.len() < options.batch {
                let end = frames.read(seek, seek + self.frames)?;
                let whole = seek as f64 / FRAMES..end as f64 / FRAMES;
                let pause = state.borders(&whole).last().map(|time| (time * FRAMES) as usize);
                let full = end == seek + self.frames;
                let end = pause.filter(|&pause| full && pause > seek).unwrap_or(end);
                if end <= seek {
                    break;
                }
                let mel = frames.window(seek, end - seek, self.frames);
                let heard = self.decoder.hear(&mel, self.bands)?;
                windows.push((Window { start: seek, count: end - seek }, heard));
                seek = end;
            }
            let Some((_, first)) = windows.first() else {
                break;
            };
            if self.name(first, options, state, each)?.is_break() {
                return Ok(());
            }
            state.prompt.previous = state.previous(self.decoder.network.sizes().tokens);
            let heard: Vec<&Heard> = windows.iter().map(|(_, heard)| heard).collect();
            let attempt = self.attempt(options.temperatures.first().copied(), options);
            let all = self.decoder.decode_all(&heard, &state.prompt, attempt)?;
            for ((window, heard), written) in windows.iter().zip(all) {
                let written = match is_good(&written, options) || options.temperatures.len() < 2 {
                    true => written,
                    false => self.written(heard, &state.prompt, options)?,
                };
                let (segments, _) = self.segments(written, heard, window, options, state)?;
                let done = (window.start + window.count) as f64 / FRAMES;
                if tell(segments, state.heard(done), each).is_break() {
                    return Ok(());
                }
            }
        }
        let duration = state.clock.as_ref().map_or(frames.seconds(), Clock::heard);
        let _ = each(TranscriptEvent::End(TranscriptEnd { duration, tokens: state.tokens }));
        Ok(())
    }

    /// Tells the language, once.
    fn name(
        &self,
        heard: &Heard,
        options: &TranscribeOptions,
        state: &mut State,
        each: Each,
    ) -> Result<ControlFlow<()>> {
        if state.named {
            return Ok(ControlFlow::Continue(()));
        }
        state.named = true;
        Ok(each(self.language(heard, options, &mut state.prompt)?))
    }

    /// Attempt at a temperature, by default 0.
    fn attempt(&self, temperature: Option<f32>, options: &TranscribeOptions) -> Attempt {
        let most = self.decoder.network.sizes().tokens / 2;
        let seed = options.seed.unwrap_or_default();
        Attempt { temperature: temperature.unwrap_or_default(), seed, most }
    }

    /// State before the first window. Errors if the model cannot do what is asked for.
    fn start(&self, options: &TranscribeOptions) -> Result<State> {
        let words = &self.decoder.vocabulary;
        check_clips(&options.clips)?;
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
            clock: None,
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

    /// Segments of what is written of a window, and the frame at which the next window starts.
    fn segments(
        &self,
        written: Written,
        heard: &Heard,
        window: &Window,
        options: &TranscribeOptions,
        state: &mut State,
    ) -> Result<(Vec<Segment>, usize)> {
        state.tokens += written.tokens.len() as u64;
        if is_silence(&written, options) {
            return Ok((Vec::new(), window.start + window.count));
        }
        let (cuts, next) = cuts(&self.decoder.vocabulary, &written.tokens, window);
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
        let straddles = |segment: &Segment| !state.borders(&segment.time).is_empty();
        if options.words || segments.iter().any(straddles) {
            segments = self.add_words(heard, window, segments, state)?;
        }
        if options.words {
            let spoken = segments.last().map(|segment| segment.time.end);
            if let Some(spoken) = spoken.filter(|&end| end > window.start as f64 / FRAMES) {
                state.spoken = spoken;
                if !ends_once(&self.decoder.vocabulary, &written.tokens) {
                    next = (spoken * FRAMES).round() as usize;
                }
            }
        }
        segments.retain(|segment| segment.time.start < segment.time.end);
        for segment in &mut segments {
            if !options.words {
                segment.words.clear();
            }
            state.relate(segment);
            segment.id = state.segments;
            state.segments += 1;
            state.before.extend(&segment.tokens);
        }
        if !options.condition || written.temperature > UNSURE || !is_good(&written, options) {
            state.before.clear();
        }
        Ok((segments, next))
    }

    /// The `segments` of a window with their words, with times; cut where a pause was left out.
    fn add_words(
        &self,
        heard: &Heard,
        window: &Window,
        segments: Vec<Segment>,
        state: &State,
    ) -> Result<Vec<Segment>> {
        let words = &self.decoder.vocabulary;
        let spoken = |segment: &Segment| -> Vec<u32> {
            segment.tokens.iter().copied().filter(|&token| token < words.end).collect()
        };
        let tokens: Vec<u32> = segments.iter().flat_map(spoken).collect();
        let language = state.prompt.language;
        let code = words.languages.iter().find(|(_, token)| Some(*token) == language);
        let spaced = code.is_none_or(|(code, _)| !UNSPACED.contains(code));
        let timed = self.decoder.words(heard, &state.prompt, &tokens, window.count, spaced)?;
        let start = window.start as f64 / FRAMES;
        let borders = |time: &Range<f64>| state.borders(time);
        let mut segments = parted(words, segments, &timed, start, &borders);
        let counts: Vec<usize> = segments.iter().map(|segment| spoken(segment).len()).collect();
        attach(&mut segments, &counts, timed, start, state.spoken);
        Ok(segments)
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
            let attempt = self.attempt(Some(temperature), options);
            let text = self.decoder.decode(heard, prompt, attempt)?;
            let good = is_good(&text, options);
            written = Some(text);
            if good {
                break;
            }
        }
        written.ok_or_else(|| Error::internal("no temperature"))
    }
}

/// Code of the language of models that know no other.
const ENGLISH: &str = "en";
/// Languages that put no spaces between words.
const UNSPACED: [&str; 6] = ["zh", "ja", "th", "lo", "my", "yue"];

/// State from window to window.
struct State {
    prompt: Prompt,
    /// True once the language is known and told.
    named: bool,
    /// Tokens of the text before the window.
    before: Vec<u32>,
    /// Tokens of the words that precede each window.
    hotwords: Vec<u32>,
    /// Times of the audio if only its speech is heard.
    clock: Option<Clock>,
    /// End of the speech so far, in seconds.
    spoken: f64,
    /// Number of segments so far.
    segments: u64,
    /// Number of tokens so far.
    tokens: u64,
}

impl State {
    /// Times within `time` at which a pause was left out.
    fn borders(&self, time: &Range<f64>) -> Vec<f64> {
        self.clock.as_ref().map_or(Vec::new(), |clock| clock.borders(time))
    }

    /// Time in the audio of a time in what is heard.
    fn heard(&self, time: f64) -> f64 {
        self.clock.as_ref().map_or(time, |clock| clock.original(&(time..time)).end)
    }

    /// Turns the times of a segment into those of the audio.
    fn relate(&self, segment: &mut Segment) {
        let Some(clock) = &self.clock else { return };
        segment.time = clock.original(&segment.time);
        for word in &mut segment.words {
            word.time = clock.original(&word.time);
        }
    }

    /// Tokens that precede the next window, of which a text of `most` tokens has room for half.
    fn previous(&self, most: usize) -> Vec<u32> {
        let room = (most / 2).saturating_sub(1);
        let hotwords = &self.hotwords[..self.hotwords.len().min(room)];
        let rest = room - hotwords.len();
        [hotwords, &self.before[self.before.len().saturating_sub(rest)..]].concat()
    }
}

/// Passes on the segments of a window, and the time up to which all is written.
fn tell(segments: Vec<Segment>, time: f64, each: Each) -> ControlFlow<()> {
    for segment in segments {
        each(TranscriptEvent::Segment(segment))?;
    }
    each(TranscriptEvent::Progress(time))
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

/// Errors unless clips follow each other.
fn check_clips(clips: &[Range<f64>]) -> Result<()> {
    let mut end = 0.0;
    for clip in clips {
        let range = format!("{} to {} seconds", clip.start, clip.end);
        if clip.is_empty() {
            return Err(Error::validation(format!("a clip from {range} is empty")));
        }
        if clip.start < end {
            let message = format!("the clip from {range} starts before the end of the one before");
            return Err(Error::validation(message));
        }
        end = clip.end;
    }
    Ok(())
}

/// Clips in frames, in their order; all of the audio if there are none.
fn clips(clips: &[Range<f64>]) -> Vec<Range<usize>> {
    let frames = |seconds: f64| (seconds * FRAMES).round() as usize;
    match clips {
        [] => std::iter::once(0..usize::MAX).collect(),
        clips => clips.iter().map(|clip| frames(clip.start)..frames(clip.end)).collect(),
    }
}
