//! Transcripts of audio by a tiny speech model.

use std::fs;

use serde_json::{Value, json};

use super::tiny::data;
use crate::env::{Env, Run};

/// A home with a tiny speech model as the workspace `whisper`, and two audio files.
struct Hearing {
    env: Env,
    wav: String,
    flac: String,
}

impl Hearing {
    fn new() -> Hearing {
        let env = Env::new();
        let to = env.workspaces().join("whisper");
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(data("speech/whisper-hf")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let [wav, flac] = ["tones-16k.wav", "tones-48k.flac"]
            .map(|name| data("audio").join(name).to_str().unwrap().to_owned());
        Hearing { env, wav, flac }
    }

    /// mlxk-run of the model. The tones have no voice, so all of them are heard.
    fn run(&self, args: &[&str]) -> Run {
        self.env.run("mlxk-run").args(["whisper", "--no-vad", "--temperature", "0"]).args(args)
    }
}

#[test]
fn a_file_is_written_down_in_every_format() {
    let hearing = Hearing::new();
    let seeded = ["--seed", "7", "--language", "en", "--audio", &hearing.wav];
    let text = hearing.run(&seeded).ok();
    assert!(!text.trim().is_empty());
    let run = |format: &str| hearing.run(&["--format", format]).args(seeded).ok();
    assert_eq!(run("text"), text);
    let lines: Vec<&str> = text.lines().collect();
    for (format, head) in
        [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n00:0"), ("tsv", "start\tend\ttext\n")]
    {
        let subtitles = run(format);
        assert!(subtitles.starts_with(head), "{subtitles}");
        assert!(lines.iter().all(|line| subtitles.contains(line)), "{subtitles}");
    }
    let whole: Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!(whole["segments"].as_array().unwrap().len(), lines.len());
    let words = hearing.run(&["--word-timestamps", "--ndjson"]).args(seeded).records();
    assert_eq!(words[0]["type"], "segment");
    assert!(words[0]["words"][0]["probability"].is_number(), "{}", words[0]);
    let narrow = ["--format", "srt", "--max-line-width", "12", "--max-line-count", "1"];
    let narrow = hearing.run(&narrow).args(seeded).ok();
    assert!(narrow.matches(" --> ").count() > lines.len(), "{narrow}");
}

#[test]
fn a_list_of_files_has_a_record_for_each_and_an_error_stops_none() {
    let hearing = Hearing::new();
    let list = format!(
        "{}\n{}\n/nowhere/b.wav\n{}\n",
        hearing.wav,
        json!({"id": 5, "path": hearing.flac, "language": "German"}),
        json!({"id": 6, "audio": hearing.wav, "language": "xx"}),
    );
    let ended = hearing.run(&["--audio", "-@", "--ndjson"]).stdin(list).end();
    assert_eq!(ended.status(), 1);
    let stderr = ended.stderr();
    assert!(stderr.contains("/nowhere/b.wav: ") && stderr.contains("xx"), "{stderr}");
    let stdout = ended.stdout();
    let records = stdout.lines().map(|line| serde_json::from_str(line).unwrap());
    let records: Vec<Value> = records.collect();
    assert_eq!(records.len(), 2, "{stdout}");
    assert_eq!(records[0]["audio"], hearing.wav);
    assert_eq!((&records[1]["id"], &records[1]["language"]), (&json!(5), &json!("de")));
    for record in &records {
        assert!(record["text"].is_string() && record["segments"].is_array(), "{record}");
        assert!((record["duration"].as_f64().unwrap() - 3.7).abs() < 0.1, "{record}");
    }
}

#[test]
fn standard_input_is_a_file_or_raw_samples() {
    let hearing = Hearing::new();
    let wav = fs::read(&hearing.wav).unwrap();
    let seeded = ["--seed", "7", "--language", "en"];
    let file = hearing.run(&seeded).args(["--audio", &hearing.wav]).ok();
    assert_eq!(hearing.run(&seeded).args(["-"]).stdin(wav.clone()).ok(), file);
    assert_eq!(hearing.run(&seeded).args(["--audio", "-"]).stdin(wav.clone()).ok(), file);
    let raw = ["--audio-format", "s16le:16000:1", "-"];
    assert_eq!(hearing.run(&seeded).args(raw).stdin(wav[44..].to_vec()).ok(), file);
}

#[test]
fn flags_that_the_kind_of_a_model_does_not_take_are_refused_by_name() {
    let hearing = Hearing::new();
    for (args, part) in [
        (vec!["--top-p", "0.5"], "--top-p is not for speech models"),
        (vec!["--system", "x"], "--system is not for speech models"),
        (vec!["--stop", "x"], "--stop is not for speech models"),
        (vec!["--kv-bits", "4"], "--kv-bits is not for speech models"),
        (vec!["--bench"], "--bench is not for speech models"),
        (vec!["--language", "xx"], "--language: no language is called \"xx\""),
        (vec!["--clip", "2,1"], "--clip"),
        (vec!["--batch", "4"], "--batch needs --no-condition"),
        (vec!["--max-line-width", "10"], "--format srt or vtt"),
        (vec!["--translate", "de"], "translated to en"),
        (vec!["--format", "srt", "--audio", "b.wav"], "one file"),
    ] {
        let args: Vec<&str> = ["--audio", &hearing.wav].into_iter().chain(args).collect();
        let ended = hearing.run(&args).end();
        assert_eq!(ended.status(), 2, "{args:?} {}", ended.stderr());
        assert!(ended.stderr().contains(part), "{args:?} {}", ended.stderr());
    }
    let silent = hearing.run(&["hello"]).end();
    assert!(silent.stderr().contains("needs audio"), "{}", silent.stderr());
}

#[test]
fn a_model_without_ears_refuses_audio() {
    let tiny = super::tiny::Tiny::new();
    let run = |args: &[&str]| tiny.env.run("mlxk-run").args(["tiny", "w1"]).args(args).end();
    let refused = run(&["--audio", "a.wav"]);
    assert_eq!(refused.status(), 1);
    let stderr = refused.stderr();
    assert!(
        stderr.contains("takes no audio") && stderr.contains("mlxk-ls -f type=audio"),
        "{stderr}"
    );
    let refused = run(&["--language", "de"]);
    assert_eq!(refused.status(), 2);
    assert!(refused.stderr().contains("--language is for speech models"), "{}", refused.stderr());
}
