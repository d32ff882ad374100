//! Formats of a transcript: text, SubRip, WebVTT, tab-separated values and JSON.

use std::str::FromStr;

use mlxk_core::{Error, Kind};

use super::document::Transcript;
use super::lines::{LineOptions, Subtitle, Subtitles, milliseconds};
use super::speech::{Segment, TranscriptEvent};

/// Format of a transcript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TranscriptFormat {
    /// Text of all segments in one line.
    #[default]
    Text,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// Start and end of each segment in milliseconds and its text, separated by tabs.
    Tsv,
    /// One JSON document in the shape of openai-whisper.
    Json,
}

impl TranscriptFormat {
    /// All formats, each with its name.
    pub const ALL: [(&str, TranscriptFormat); 5] = [
        ("text", TranscriptFormat::Text),
        ("srt", TranscriptFormat::Srt),
        ("vtt", TranscriptFormat::Vtt),
        ("tsv", TranscriptFormat::Tsv),
        ("json", TranscriptFormat::Json),
    ];

    /// True if the format needs the times of segments.
    pub fn has_times(self) -> bool {
        self != TranscriptFormat::Text
    }
}

impl FromStr for TranscriptFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<TranscriptFormat, Error> {
        let found = TranscriptFormat::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, format)| *format).ok_or_else(|| {
            let names = TranscriptFormat::ALL.map(|(name, _)| name).join(", ");
            Error::new(Kind::Validation, "", format!("{text:?} is not one of {names}"))
        })
    }
}

/// Writer of a transcript, which gives out each part of the text as soon as it is known.
#[derive(Debug)]
pub struct TranscriptWriter {
    format: TranscriptFormat,
    subtitles: Subtitles,
    /// Number of subtitles, or of segments with text, so far.
    count: usize,
    /// True if the head of the format has been written.
    begun: bool,
    /// The transcript, if the format has a document of all of it.
    whole: Option<Transcript>,
}

impl TranscriptWriter {
    /// Writer in a format. `words` is true if segments have words.
    pub fn new(format: TranscriptFormat, lines: LineOptions, words: bool) -> TranscriptWriter {
        let subtitles = Subtitles::new(lines, words);
        let whole = (format == TranscriptFormat::Json).then(Transcript::default);
        TranscriptWriter { format, subtitles, count: 0, begun: false, whole }
    }

    /// Text that an event adds.
    pub fn write(&mut self, event: &TranscriptEvent) -> String {
        if let Some(whole) = &mut self.whole {
            whole.push(event.clone());
        }
        let mut text = self.head();
        match event {
            TranscriptEvent::Segment(segment) => text += &self.segment(segment),
            TranscriptEvent::End(_) => text += &self.tail(),
            TranscriptEvent::Language { .. } | TranscriptEvent::Progress(_) => {}
        }
        text
    }

    /// The first lines of the format, once.
    fn head(&mut self) -> String {
        let head = match self.format {
            TranscriptFormat::Vtt => "WEBVTT\n\n",
            TranscriptFormat::Tsv => "start\tend\ttext\n",
            _ => "",
        };
        if std::mem::replace(&mut self.begun, true) { String::new() } else { head.to_owned() }
    }

    fn segment(&mut self, segment: &Segment) -> String {
        let text = segment.text.trim();
        match self.format {
            TranscriptFormat::Text if text.is_empty() => String::new(),
            TranscriptFormat::Text => {
                self.count += 1;
                if self.count == 1 { text.to_owned() } else { segment.text.trim_end().to_owned() }
            }
            TranscriptFormat::Tsv => {
                let [start, end] = [segment.time.start, segment.time.end].map(milliseconds);
                format!("{start}\t{end}\t{}\n", text.replace('\t', " "))
            }
            TranscriptFormat::Srt | TranscriptFormat::Vtt => {
                let complete = self.subtitles.push(segment);
                complete.iter().map(|subtitle| self.subtitle(subtitle)).collect()
            }
            TranscriptFormat::Json => String::new(),
        }
    }

    fn tail(&mut self) -> String {
        match (self.format, &self.whole) {
            (TranscriptFormat::Srt | TranscriptFormat::Vtt, _) => {
                let last = self.subtitles.finish();
                last.iter().map(|subtitle| self.subtitle(subtitle)).collect()
            }
            (TranscriptFormat::Text, _) if self.count > 0 => "\n".to_owned(),
            (_, Some(whole)) => format!("{}\n", whole.json()),
            _ => String::new(),
        }
    }

    fn subtitle(&mut self, subtitle: &Subtitle) -> String {
        self.count += 1;
        let Subtitle { start, end, text } = subtitle;
        match self.format {
            TranscriptFormat::Srt => {
                let (start, end) = (clock(*start, true, ','), clock(*end, true, ','));
                format!("{}\n{start} --> {end}\n{text}\n\n", self.count)
            }
            _ => {
                let (start, end) = (clock(*start, false, '.'), clock(*end, false, '.'));
                format!("{start} --> {end}\n{text}\n\n")
            }
        }
    }
}

/// A time as `HH:MM:SS` and milliseconds after `mark`; without hours if there are none, unless
/// `hours` is true.
fn clock(milliseconds: u64, hours: bool, mark: char) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (minutes, hour) = (seconds / 60 % 60, seconds / 3600);
    let time = format!("{minutes:02}:{:02}{mark}{rest:03}", seconds % 60);
    if hours || hour > 0 { format!("{hour:02}:{time}") } else { time }
}
