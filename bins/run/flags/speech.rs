//! Flags of speech models.

use std::ops::Range;

use clap::{ArgAction, Args, ValueEnum};
use mlxk_core::{Error, Kind, Result};
use mlxk_processor::audio::AudioFormat;
use mlxk_processor::sampling::Options;
use mlxk_processor::transcript::{
    LineOptions, SpeechTask, TranscribeOptions, TranscriptFormat, language,
};

/// Steps between the temperatures that are tried one after another, up to 1, as in openai-whisper.
const TEMPERATURE_STEP: f32 = 0.2;

/// Flags of speech models.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Speech")]
pub struct SpeechFlags {
    /// Write down the speech in these files; - for standard input
    #[arg(long, value_name = "FILE", num_args = 0.., action = ArgAction::Append)]
    pub audio: Vec<String>,
    /// With --audio: read the names of files, or records that have them, from standard input
    #[arg(id = "@", short = '@', requires = "audio")]
    pub listed: bool,
    /// Read raw samples of this format, rate and number of channels, as in s16le:16000:1
    #[arg(long, value_name = "FORMAT")]
    audio_format: Option<AudioFormat>,
    /// Language of the speech: a code, an English name, or auto, which is the default
    #[arg(long, value_name = "LANGUAGE")]
    language: Option<String>,
    /// Whether to write the speech in its own language, the default, or in English
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,
    /// The same as --task translate; the only language is en
    #[arg(long, value_name = "LANGUAGE", num_args = 0..=1, default_missing_value = "en", conflicts_with = "task")]
    translate: Option<String>,
    /// Format of the transcript: text, the default, srt, vtt, tsv or json
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["ndjson", "json"])]
    format: Option<TranscriptFormat>,
    /// Maximum number of characters in a line of subtitles
    #[arg(long, value_name = "N")]
    max_line_width: Option<usize>,
    /// Maximum number of lines of a subtitle, which with a width may span segments
    #[arg(long, value_name = "N")]
    max_line_count: Option<usize>,
    /// Maximum number of words of a subtitle
    #[arg(long, value_name = "N")]
    max_words_per_line: Option<usize>,
    /// Underline each word in subtitles while it is spoken
    #[arg(long)]
    highlight_words: bool,
    /// Tell the times and probabilities of words
    #[arg(long)]
    word_timestamps: bool,
    /// Let the model write no times of its own
    #[arg(long)]
    no_timestamps: bool,
    /// Decode each window without the text of the one before
    #[arg(long)]
    no_condition: bool,
    /// Words that are likely to occur
    #[arg(long, value_name = "TEXT")]
    hotwords: Option<String>,
    /// Hear only these parts, in seconds: START,END,START,END,...
    #[arg(long, value_name = "TIMES")]
    clip: Option<String>,
    /// Hear only the parts with speech, the default
    #[arg(long, overrides_with = "no_vad")]
    vad: bool,
    /// Hear everything
    #[arg(long, overrides_with = "vad")]
    no_vad: bool,
}

/// What is written of speech.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// The speech in its own language
    Transcribe,
    /// The speech in English
    Translate,
}

/// Options of transcriptions, as the flags state them.
#[derive(Clone, Debug)]
pub struct SpeechOptions {
    /// Format of raw samples; files have their own format if absent.
    pub raw: Option<AudioFormat>,
    /// How speech is decoded.
    pub decode: TranscribeOptions,
    /// Format of transcripts.
    pub format: TranscriptFormat,
    /// Limits of subtitles.
    pub lines: LineOptions,
}

impl SpeechFlags {
    /// Options that the flags state, with the temperature and the seed of `sampling`.
    ///
    /// # Errors
    /// If a value is invalid, or flags exclude each other.
    pub fn options(
        &self,
        sampling: &Options,
        batch: Option<usize>,
        prompt: Option<String>,
    ) -> Result<SpeechOptions> {
        let lines = LineOptions {
            max_line_width: self.max_line_width,
            max_line_count: self.max_line_count,
            max_words_per_line: self.max_words_per_line,
            highlight_words: self.highlight_words,
        };
        let format = self.format.unwrap_or_default();
        let subtitles = matches!(format, TranscriptFormat::Srt | TranscriptFormat::Vtt);
        if lines.needs_words() && !subtitles {
            return Err(Error::command("the limits of lines go with --format srt or vtt"));
        }
        if batch.is_some_and(|batch| batch > 1) && !self.no_condition {
            return Err(Error::command("--batch needs --no-condition")
                .hint("windows that need the text of the one before cannot be decoded together"));
        }
        let default = TranscribeOptions::default();
        let language = self.language.as_deref().map(|text| language::parse(text).map_err(flag));
        let decode = TranscribeOptions {
            language: language.transpose()?.flatten().map(str::to_owned),
            task: self.task()?,
            prompt,
            hotwords: self.hotwords.clone(),
            temperatures: temperatures(sampling.temperature).unwrap_or(default.temperatures),
            condition: !self.no_condition,
            timestamps: !self.no_timestamps,
            words: self.word_timestamps || lines.needs_words(),
            clips: self.clip.as_deref().map(clips).transpose()?.unwrap_or_default(),
            vad: !self.no_vad,
            batch: batch.unwrap_or(1),
            seed: sampling.seed,
            ..TranscribeOptions::default()
        };
        Ok(SpeechOptions { raw: self.audio_format, decode, format, lines })
    }

    fn task(&self) -> Result<SpeechTask> {
        match (self.task, self.translate.as_deref()) {
            (_, Some(language)) if !matches!(language, "en" | "English" | "english") => {
                let message = format!("--translate: speech is translated to en, not {language}");
                Err(Error::command(message))
            }
            (Some(Task::Translate), _) | (_, Some(_)) => Ok(SpeechTask::Translate),
            _ => Ok(SpeechTask::Transcribe),
        }
    }
}

/// Temperatures from `first` on.
fn temperatures(first: Option<f32>) -> Option<Vec<f32>> {
    let first = first?;
    let steps = ((1.0 - first).max(0.0) / TEMPERATURE_STEP + 1e-3) as usize;
    Some((0..=steps).map(|step| first + step as f32 * TEMPERATURE_STEP).collect())
}

/// Ranges of seconds; the last one may have no end.
fn clips(text: &str) -> Result<Vec<Range<f64>>> {
    let invalid = || {
        Error::command(format!("--clip: {text:?} is not START,END,START,END,..."))
            .hint("times are in seconds, in order; the last end may be left out")
    };
    let times: Option<Vec<f64>> = text.split(',').map(|time| time.trim().parse().ok()).collect();
    let mut times = times.ok_or_else(invalid)?;
    if times.len() % 2 == 1 {
        times.push(f64::INFINITY);
    }
    let ordered = times.windows(2).all(|pair| pair[0] <= pair[1]) && times[0] >= 0.0;
    let ranges = times.chunks_exact(2).map(|pair| pair[0]..pair[1]);
    match ordered && times.chunks_exact(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(ranges.collect()),
        false => Err(invalid()),
    }
}

/// The error of a value as one of the command line.
fn flag(error: Error) -> Error {
    let message = error.message.replace("`language`", "--language");
    let hint = error.hint.clone().unwrap_or_default();
    Error::new(Kind::Command, "", message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_are_pairs_of_times_in_order() {
        assert_eq!(clips("0,1.5, 3,4").unwrap(), [0.0..1.5, 3.0..4.0]);
        assert_eq!(clips("2").unwrap(), [2.0..f64::INFINITY]);
        for wrong in ["", "a", "2,1", "1,1", "-1,2", "0,2,1,3", "0,nan", "1;2"] {
            assert!(clips(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn temperatures_rise_to_one() {
        assert_eq!(temperatures(Some(0.0)).unwrap().len(), 6);
        assert_eq!(temperatures(Some(0.9)), Some(vec![0.9]));
        assert_eq!(temperatures(Some(1.5)), Some(vec![1.5]));
        assert_eq!(temperatures(None), None);
    }
}
