//! Output of a transcription: text or subtitles, records, or the envelope.

use mlxk_cli::{Form, Output};
use mlxk_core::{Record, Result};
use mlxk_processor::transcript::document::segment_record;
use mlxk_processor::transcript::{Transcript, TranscriptEvent, TranscriptWriter, language};
use serde_json::Value;

use super::Ui;
use crate::run::flags::SpeechOptions;

/// Output of the transcription of a file.
pub struct Page<'a> {
    /// Record of the file, whose fields are kept.
    record: Record,
    /// Name of the model.
    model: &'a str,
    ui: Ui,
    writer: TranscriptWriter,
    /// Text that is written at the end, if it is not streamed.
    held: String,
    /// The transcript, if a record has all of it.
    whole: Transcript,
}

impl<'a> Page<'a> {
    /// Output of the transcription of the file of `record` by `model`.
    pub fn new(record: Record, model: &'a str, options: &SpeechOptions, ui: Ui) -> Page<'a> {
        let writer = TranscriptWriter::new(options.format, options.lines, options.decode.words);
        Page { record, model, ui, writer, held: String::new(), whole: Transcript::default() }
    }

    /// Writes what an event adds.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write(&mut self, event: &TranscriptEvent, out: &mut Output) -> Result<()> {
        match out.form {
            Form::Human => self.write_text(event, out),
            Form::Ndjson => self.write_records(event, out),
            Form::Json => self.write_envelope(event, out),
        }
    }

    fn write_text(&mut self, event: &TranscriptEvent, out: &mut Output) -> Result<()> {
        if let (TranscriptEvent::Language { code, probability: Some(probability) }, true) =
            (event, self.ui.tells_language)
        {
            let name = language::name(code).unwrap_or(code);
            eprintln!("[language: {name}, {:.0} %]", probability * 100.0);
        }
        self.held += &self.writer.write(event);
        let ready = self.ui.stream || matches!(event, TranscriptEvent::End(_));
        match ready && !self.held.is_empty() {
            true => out.text(&std::mem::take(&mut self.held)),
            false => Ok(()),
        }
    }

    /// A file of a list has one record; that of the command line one for each segment, and an end.
    fn write_records(&mut self, event: &TranscriptEvent, out: &mut Output) -> Result<()> {
        self.whole.push(event.clone());
        match event {
            TranscriptEvent::Segment(segment) if self.ui.events => {
                let audio = self.record.get("audio").cloned().unwrap_or_default();
                let head = Record::default().with("type", "segment").with("audio", audio);
                out.lines([&head.merge(segment_record(segment))])
            }
            TranscriptEvent::End(_) => {
                let mut record = match self.ui.events {
                    true => Record::default().with("type", "end").merge(self.record.clone()),
                    false => self.record.clone(),
                };
                record = record.with("model", self.model).merge(self.whole.record());
                if !self.ui.events {
                    record = record.with("segments", self.segments());
                }
                out.lines([&record])
            }
            _ => Ok(()),
        }
    }

    fn write_envelope(&mut self, event: &TranscriptEvent, out: &mut Output) -> Result<()> {
        self.whole.push(event.clone());
        if !matches!(event, TranscriptEvent::End(_)) {
            return Ok(());
        }
        let data = Record::default().with("model", self.model).merge(self.record.clone());
        let data = data.with("response", self.whole.text().trim()).merge(self.whole.record());
        out.envelope(data.with("segments", self.segments()))
    }

    fn segments(&self) -> Vec<Value> {
        self.whole.segments.iter().map(|segment| segment_record(segment).into()).collect()
    }
}
