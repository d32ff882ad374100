//! Whole transcripts, and their JSON documents: those of openai-whisper and of OpenAI's API, and the
//! records of mlxk-record(7).

use mlxk_core::Record;
use serde_json::{Map, Value, json};

use super::language;
use super::speech::{Segment, SpeechTask, TranscriptEnd, TranscriptEvent, Word};

/// The collected events of a transcription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    /// Code of the language; none if the model does not tell.
    pub language: Option<String>,
    /// Probability of the language, if it was detected.
    pub probability: Option<f32>,
    /// Segments in order.
    pub segments: Vec<Segment>,
    /// The end, once there is one.
    pub end: TranscriptEnd,
}

impl Transcript {
    /// Adds an event.
    pub fn push(&mut self, event: TranscriptEvent) {
        match event {
            TranscriptEvent::Language { code, probability } => {
                (self.language, self.probability) = (Some(code), probability);
            }
            TranscriptEvent::Segment(segment) => self.segments.push(segment),
            TranscriptEvent::Progress(_) => {}
            TranscriptEvent::End(end) => self.end = end,
        }
    }

    /// Text of all segments, with the space before the first word that the model writes.
    pub fn text(&self) -> String {
        self.segments.iter().map(|segment| &*segment.text).collect()
    }

    /// The document of openai-whisper: `text`, `segments` and `language`.
    pub fn json(&self) -> Value {
        let segments: Vec<Value> =
            self.segments.iter().map(|segment| with_words(segment, true)).collect();
        json!({"text": self.text(), "segments": segments, "language": self.language})
    }

    /// The document `verbose_json` of OpenAI's API, with segments and words as asked. A translation
    /// is in English.
    pub fn verbose_json(&self, task: SpeechTask, segments: bool, words: bool) -> Value {
        let code = self.language.as_deref().unwrap_or_default();
        let (task, language) = match task {
            SpeechTask::Transcribe => ("transcribe", language::name(code).unwrap_or(code)),
            SpeechTask::Translate => ("translate", "english"),
        };
        let mut document = json!({
            "task": task,
            "language": language,
            "duration": seconds(self.end.duration),
            "text": self.text().trim(),
        });
        if segments {
            let all = self.segments.iter().map(|segment| with_words(segment, false));
            document["segments"] = all.collect();
        }
        if words {
            let all = self.segments.iter().flat_map(|segment| &segment.words);
            let bare = |w: &Word| word(&Word { text: w.text.trim().to_owned(), ..w.clone() });
            document["words"] = all.map(bare).collect();
        }
        document
    }

    /// Fields of the record of a transcription, without its segments.
    pub fn record(&self) -> Record {
        let mut record = Record::default().with("text", self.text().trim());
        record = record.with("language", self.language.as_deref());
        if let Some(probability) = self.probability {
            record = record.with("language_probability", short(probability));
        }
        record.with("duration", seconds(self.end.duration)).with("tokens", self.end.tokens)
    }
}

/// Fields of the record of a segment.
pub fn segment_record(segment: &Segment) -> Record {
    let mut fields = segment_fields(segment);
    fields.insert("text".to_owned(), segment.text.trim().into());
    fields.shift_remove("tokens");
    fields.shift_remove("seek");
    add_words(&mut fields, segment);
    fields.into()
}

/// A segment in the form of openai-whisper and of OpenAI's API, with its words if there are any and
/// `words` is true.
fn with_words(segment: &Segment, words: bool) -> Value {
    let mut fields = segment_fields(segment);
    if words {
        add_words(&mut fields, segment);
    }
    fields.into()
}

fn add_words(fields: &mut Map<String, Value>, segment: &Segment) {
    if !segment.words.is_empty() {
        let with_probability = |w: &Word| {
            let mut value = word(w);
            value["probability"] = short(w.probability);
            value
        };
        fields.insert("words".to_owned(), segment.words.iter().map(with_probability).collect());
    }
}

fn segment_fields(segment: &Segment) -> Map<String, Value> {
    let fields = [
        ("id", segment.id.into()),
        ("seek", segment.seek.into()),
        ("start", seconds(segment.time.start)),
        ("end", seconds(segment.time.end)),
        ("text", segment.text.clone().into()),
        ("tokens", segment.tokens.clone().into()),
        ("temperature", short(segment.temperature)),
        ("avg_logprob", short(segment.avg_logprob)),
        ("compression_ratio", short(segment.compression_ratio)),
        ("no_speech_prob", short(segment.no_speech_prob)),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

fn word(word: &Word) -> Value {
    json!({
        "word": word.text,
        "start": seconds(word.time.start),
        "end": seconds(word.time.end),
    })
}

/// A time in seconds, to the microsecond.
fn seconds(time: f64) -> Value {
    ((time * 1e6).round() / 1e6).into()
}

/// A number with as many digits as its 32 bits have; null if it is not finite.
fn short(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
