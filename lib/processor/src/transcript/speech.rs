//! Transcriptions: what is asked of a speech model, and what it answers.

use std::ops::Range;
use std::sync::Arc;

/// Request to write down speech.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TranscribeRequest {
    /// Name of the model, as the client gave it.
    pub model: String,
    /// Bytes of an audio file in any supported format.
    pub audio: Arc<[u8]>,
    /// How the speech is decoded.
    pub options: TranscribeOptions,
}

/// What is written down of speech.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpeechTask {
    /// The speech in its own language.
    #[default]
    Transcribe,
    /// The speech in English.
    Translate,
}

/// How speech is decoded. The defaults are those of openai-whisper.
#[derive(Clone, Debug, PartialEq)]
pub struct TranscribeOptions {
    /// Language of the speech as an ISO 639-1 code; detected if absent.
    pub language: Option<String>,
    /// What is written down.
    pub task: SpeechTask,
    /// Text that precedes the speech, which sets the style and the spelling of names.
    pub prompt: Option<String>,
    /// Words that are likely to occur, which precede each window.
    pub hotwords: Option<String>,
    /// Temperatures that are tried one after another until a text is good enough.
    pub temperatures: Vec<f32>,
    /// Ratio of a text's length to its compressed length above which it is a repetition, and the next
    /// temperature is tried.
    pub compression_ratio_threshold: Option<f32>,
    /// Mean log probability of a text's tokens below which the next temperature is tried.
    pub logprob_threshold: Option<f32>,
    /// Probability of silence above which a window without a likely text is skipped.
    pub no_speech_threshold: Option<f32>,
    /// True if the text of a window precedes the next one.
    pub condition: bool,
    /// True if segments have times of the model's own; otherwise a window is a segment.
    pub timestamps: bool,
    /// True if words get times and probabilities.
    pub words: bool,
    /// Parts of the audio that are heard, in seconds; all of it if empty.
    pub clips: Vec<Range<f64>>,
    /// True if only the parts with speech are heard, as a detector of voices finds them.
    pub vad: bool,
    /// Number of windows that are decoded together, if `condition` is false.
    pub batch: usize,
    /// Seed of sampling at temperatures above 0.
    pub seed: Option<u64>,
}

impl Default for TranscribeOptions {
    fn default() -> TranscribeOptions {
        TranscribeOptions {
            language: None,
            task: SpeechTask::Transcribe,
            prompt: None,
            hotwords: None,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            condition: true,
            timestamps: true,
            words: false,
            clips: Vec::new(),
            vad: true,
            batch: 1,
            seed: None,
        }
    }
}

/// Event of a transcription. Events come in order; [`TranscriptEvent::End`] is the last one.
#[derive(Clone, Debug, PartialEq)]
pub enum TranscriptEvent {
    /// Language of the speech.
    Language {
        /// ISO 639-1 code, or the model's own code for a language without one.
        code: String,
        /// Probability of the language; absent if the request names the language.
        probability: Option<f32>,
    },
    /// A segment is complete.
    Segment(Segment),
    /// All audio before this time, in seconds, is written down.
    Progress(f64),
    /// End of the transcription.
    End(TranscriptEnd),
}

/// End of a transcription.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TranscriptEnd {
    /// Length of the audio, in seconds.
    pub duration: f64,
    /// Number of tokens that the model wrote.
    pub tokens: u64,
}

/// Segment of a transcription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Number of the segment, from 0.
    pub id: u64,
    /// Start of the window that the segment was decoded in, in frames of 10 ms.
    pub seek: u64,
    /// Time of the segment, in seconds from the start of the audio.
    pub time: Range<f64>,
    /// Text of the segment, with the space before it that the model writes.
    pub text: String,
    /// Tokens of the segment, those of times included.
    pub tokens: Vec<u32>,
    /// Temperature at which the segment was decoded.
    pub temperature: f32,
    /// Mean log probability of the tokens.
    pub avg_logprob: f32,
    /// Ratio of the text's length to its compressed length.
    pub compression_ratio: f32,
    /// Probability that the window has no speech.
    pub no_speech_prob: f32,
    /// Words with their times, if they are asked for.
    pub words: Vec<Word>,
}

/// Word of a transcription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Word {
    /// Time of the word, in seconds from the start of the audio.
    pub time: Range<f64>,
    /// The word, with the space before it and the punctuation around it.
    pub text: String,
    /// Mean probability of the word's tokens.
    pub probability: f32,
}
