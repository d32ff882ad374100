//! Subtitles: the words of a transcript divided into lines, as openai-whisper's writers divide them.

use super::speech::{Segment, Word};

/// Longest pause within a subtitle of several segments, in seconds.
const LONG_PAUSE: f64 = 3.0;

/// Length of a line, and number of its words, without a limit.
const UNLIMITED: usize = 1000;

/// Limits of subtitles. Any of them needs the times of words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineOptions {
    /// Maximum number of characters in a line.
    pub max_line_width: Option<usize>,
    /// Maximum number of lines of a subtitle. With a width, subtitles may span segments.
    pub max_line_count: Option<usize>,
    /// Maximum number of words of a subtitle.
    pub max_words_per_line: Option<usize>,
    /// True if each word is underlined while it is spoken.
    pub highlight_words: bool,
}

impl LineOptions {
    /// True if the options need the times of words.
    pub fn needs_words(&self) -> bool {
        *self != LineOptions::default()
    }
}

/// Text that is shown for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Subtitle {
    /// Time at which the text appears, in milliseconds.
    pub start: u64,
    /// Time at which the text vanishes, in milliseconds.
    pub end: u64,
    /// Lines of the text.
    pub text: String,
}

/// Division of segments into subtitles, which are complete as early as possible.
#[derive(Debug)]
pub struct Subtitles {
    options: LineOptions,
    /// True if words are shown by their own times, not by those of segments.
    by_words: bool,
    /// Words of the subtitle that is not complete yet.
    open: Vec<Word>,
    /// Characters of its last line.
    line_length: usize,
    /// Number of its lines.
    lines: usize,
    /// Start of the last word.
    last: Option<f64>,
}

impl Subtitles {
    /// No subtitles yet. `by_words` is true if segments have words.
    pub fn new(options: LineOptions, by_words: bool) -> Subtitles {
        Subtitles { options, by_words, open: Vec::new(), line_length: 0, lines: 1, last: None }
    }

    /// Adds a segment, and returns the subtitles that are complete.
    pub fn push(&mut self, segment: &Segment) -> Vec<Subtitle> {
        if !self.by_words || segment.words.is_empty() {
            let mut complete = self.finish();
            let text = safe(segment.text.trim());
            let (start, end) = (milliseconds(segment.time.start), milliseconds(segment.time.end));
            complete.extend((!text.is_empty()).then_some(Subtitle { start, end, text }));
            return complete;
        }
        let mut complete = Vec::new();
        let most = self.options.max_words_per_line.unwrap_or(UNLIMITED).max(1);
        for words in segment.words.chunks(most) {
            for (place, word) in words.iter().enumerate() {
                complete.extend(self.word(word, place == 0));
            }
        }
        if self.keeps_segments() {
            complete.extend(self.finish());
        }
        complete
    }

    /// The last subtitle.
    pub fn finish(&mut self) -> Vec<Subtitle> {
        self.line_length = 0;
        self.close()
    }

    /// True if a subtitle has words of one segment only.
    fn keeps_segments(&self) -> bool {
        self.options.max_line_count.is_none() || self.options.max_line_width.is_none()
    }

    /// Adds a word, and returns the subtitles before it if it begins one; `first` is true for the
    /// first word of a segment, or of as many words as a subtitle may have.
    fn word(&mut self, word: &Word, first: bool) -> Vec<Subtitle> {
        let mut word = word.clone();
        let mut complete = Vec::new();
        let length = word.text.chars().count();
        let last = self.last.unwrap_or(word.time.start);
        let pause = !self.keeps_segments() && word.time.start - last > LONG_PAUSE;
        let breaks = first && !self.open.is_empty() && self.keeps_segments();
        let width = self.options.max_line_width.unwrap_or(UNLIMITED);
        let has_room = self.line_length + length <= width;
        if self.line_length > 0 && has_room && !pause && !breaks {
            self.line_length += length;
        } else {
            word.text = word.text.trim().to_owned();
            let full = self.options.max_line_count.is_some_and(|most| pause || self.lines >= most);
            let line = word.text.chars().count();
            if !self.open.is_empty() && full || breaks {
                complete = self.close();
            } else if self.line_length > 0 {
                self.lines += 1;
                word.text.insert(0, '\n');
            }
            self.line_length = line;
        }
        self.last = Some(word.time.start);
        self.open.push(word);
        complete
    }

    /// The open subtitle, or one for each of its words if these are highlighted.
    fn close(&mut self) -> Vec<Subtitle> {
        let words = std::mem::take(&mut self.open);
        self.lines = 1;
        let (Some(first), Some(last)) = (words.first(), words.last()) else { return Vec::new() };
        let (start, end) = (milliseconds(first.time.start), milliseconds(last.time.end));
        if self.options.highlight_words {
            return highlighted(&words, start);
        }
        vec![Subtitle { start, end, text: safe(&joined(&words, None)) }]
    }
}

/// A subtitle for each word, in which it is underlined, and one for each pause between words.
fn highlighted(words: &[Word], start: u64) -> Vec<Subtitle> {
    let plain = safe(&joined(words, None));
    let (mut subtitles, mut last) = (Vec::new(), start);
    for (place, word) in words.iter().enumerate() {
        let (start, end) = (milliseconds(word.time.start), milliseconds(word.time.end));
        if last != start {
            subtitles.push(Subtitle { start: last, end: start, text: plain.clone() });
        }
        subtitles.push(Subtitle { start, end, text: safe(&joined(words, Some(place))) });
        last = end;
    }
    subtitles
}

/// The text of words, in which the word at `underlined` is in `<u>`.
fn joined(words: &[Word], underlined: Option<usize>) -> String {
    let text = |(place, word): (usize, &Word)| match word.text.trim_start() {
        bare if Some(place) == underlined => {
            let space = &word.text[..word.text.len() - bare.len()];
            format!("{space}<u>{bare}</u>")
        }
        _ => word.text.clone(),
    };
    words.iter().enumerate().map(text).collect()
}

/// The text without the arrow that stands between the times of a subtitle.
fn safe(text: &str) -> String {
    text.replace("-->", "->")
}

/// Whole milliseconds of a time in seconds; halves are rounded to even, as in Python.
pub fn milliseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round_ties_even() as u64
}
