//! Transcripts in all formats, held against the writers of openai-whisper.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use mlxk_processor::transcript::document::segment_record;
use mlxk_processor::transcript::{
    LineOptions, Segment, SpeechTask, Transcript, TranscriptEnd, TranscriptEvent, TranscriptFormat,
    TranscriptWriter, Word,
};
use serde_json::{Value, json};

fn cases() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/speech/transcripts.json")).unwrap()
}

fn segments(cases: &Value, words: bool) -> Vec<Segment> {
    let float = |value: &Value, key: &str| value[key].as_f64().unwrap();
    let time = |value: &Value| float(value, "start")..float(value, "end");
    let word = |value: &Value| Word {
        time: time(value),
        text: value["word"].as_str().unwrap().to_owned(),
        probability: float(value, "probability") as f32,
    };
    let segment = |value: &Value| Segment {
        id: value["id"].as_u64().unwrap(),
        seek: value["seek"].as_u64().unwrap(),
        time: time(value),
        text: value["text"].as_str().unwrap().to_owned(),
        tokens: vec![1, 2],
        temperature: float(value, "temperature") as f32,
        avg_logprob: float(value, "avg_logprob") as f32,
        compression_ratio: float(value, "compression_ratio") as f32,
        no_speech_prob: float(value, "no_speech_prob") as f32,
        words: match words {
            true => value["words"].as_array().unwrap().iter().map(word).collect(),
            false => Vec::new(),
        },
    };
    cases["segments"].as_array().unwrap().iter().map(segment).collect()
}

/// The parts of a transcript as they are written, one for each event.
fn parts(segments: &[Segment], mut writer: TranscriptWriter) -> Vec<String> {
    let language = TranscriptEvent::Language { code: "en".to_owned(), probability: None };
    let all = segments.iter().cloned().map(TranscriptEvent::Segment);
    let end = TranscriptEvent::End(TranscriptEnd { duration: 3607.0, tokens: 12 });
    let events = [language].into_iter().chain(all).chain([end]);
    events.map(|event| writer.write(&event)).collect()
}

#[test]
fn the_writers_of_openai_whisper_write_the_same() {
    let cases = cases();
    for case in cases["cases"].as_array().unwrap() {
        let number = |key: &str| case["options"][key].as_u64().map(|n| n as usize);
        let lines = LineOptions {
            max_line_width: number("max_line_width"),
            max_line_count: number("max_line_count"),
            max_words_per_line: number("max_words_per_line"),
            highlight_words: case["options"]["highlight_words"] == true,
        };
        let (words, format) = (case["words"] == true, case["format"].as_str().unwrap());
        let writer = TranscriptWriter::new(format.parse().unwrap(), lines, words);
        let written = parts(&segments(&cases, words), writer).concat();
        let expected = case["text"].as_str().unwrap();
        // The arrow between times is not left in words either.
        let is_time = |line: &str| line.contains(":") && line.contains(" --> ");
        let lines = expected.lines().map(|line| match format {
            "srt" | "vtt" if !is_time(line) => line.replace("-->", "->"),
            _ => line.to_owned(),
        });
        let mut expected: Vec<String> = lines.collect();
        // A text for people and programs is not broken at segments.
        if format == "text" {
            expected = vec![expected.join(" ")];
        }
        let written: Vec<&str> = written.lines().collect();
        assert_eq!(written, expected, "{format} words: {words} {}", case["options"]);
    }
}

#[test]
fn a_segment_is_written_as_soon_as_it_is_there() {
    let cases = cases();
    let two_lines =
        LineOptions { max_line_width: Some(42), max_line_count: Some(1), ..LineOptions::default() };
    for (format, lines, words) in [
        (TranscriptFormat::Text, LineOptions::default(), false),
        (TranscriptFormat::Tsv, LineOptions::default(), false),
        (TranscriptFormat::Srt, LineOptions::default(), true),
        (
            TranscriptFormat::Vtt,
            LineOptions { max_words_per_line: Some(2), ..LineOptions::default() },
            true,
        ),
        (TranscriptFormat::Srt, two_lines, true),
    ] {
        let parts = parts(&segments(&cases, words), TranscriptWriter::new(format, lines, words));
        assert!(parts[1].contains("And so"), "{format:?} {parts:?}");
        assert!(parts[2..].iter().all(|part| !part.contains("And so")), "{format:?}");
    }
}

#[test]
fn documents_have_the_shapes_of_openai() {
    let cases = cases();
    let mut transcript = Transcript::default();
    transcript.push(TranscriptEvent::Language { code: "ht".to_owned(), probability: Some(0.9) });
    let all = segments(&cases, true);
    all.iter().for_each(|one| transcript.push(TranscriptEvent::Segment(one.clone())));
    transcript.push(TranscriptEvent::End(TranscriptEnd { duration: 3607.25, tokens: 12 }));
    let whole = transcript.json();
    assert_eq!(whole["segments"], cases["segments"]);
    assert_eq!(whole["language"], "ht");
    let text: String = all.iter().map(|segment| &*segment.text).collect();
    assert_eq!(whole["text"], text);
    let verbose = transcript.verbose_json(SpeechTask::Transcribe, true, true);
    assert_eq!(verbose["language"], "haitian creole");
    assert_eq!(verbose["duration"], 3607.25);
    assert_eq!(verbose["text"], text.trim());
    assert_eq!(verbose["words"][1], json!({"word": "so,", "start": 0.32, "end": 0.62}));
    assert_eq!(verbose["segments"][1]["id"], 1);
    let translated = transcript.verbose_json(SpeechTask::Translate, false, false);
    assert_eq!(
        (&translated["task"], &translated["language"]),
        (&"translate".into(), &"english".into())
    );
    assert!(translated.get("segments").is_none() && translated.get("words").is_none());
    let record = transcript.record();
    assert_eq!(record.get("language_probability"), Some(&json!(0.9)));
    assert_eq!(record.str("text"), Some(text.trim()));
    let record = segment_record(&all[1]);
    assert_eq!(record.str("text"), Some("A --> B"));
    assert_eq!(record.get("start"), Some(&json!(9.5005)));
    assert_eq!(record.get("words").unwrap()[1]["probability"], 0.5);
}
