//! Transcriptions and translations: forms, formats, streams and refusals.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use mlxk_processor::transcript::{SpeechTask, TranscribeOptions};
use mlxk_serve::{App, Settings};
use mlxk_testengine::{Answered, Script, ask, post, post_form, settings};
use serde_json::json;

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";

async fn hear(script: &Script, path: &str, fields: &[(&str, &str)]) -> Answered {
    let fields: Vec<_> = [("model", "m")].into_iter().chain(fields.iter().copied()).collect();
    post_form(&App::new(script.clone(), settings()), path, Some(b"RIFF"), &fields).await
}

#[tokio::test]
async fn each_format_has_its_document() {
    let script = Script::new();
    let answered = hear(&script, TRANSCRIPTIONS, &[]).await;
    let usage = json!({"type": "duration", "seconds": 3.0});
    assert_eq!(answered.json(), json!({"text": "Ja. Nein.", "usage": usage}));
    for (format, kind, text) in [
        ("text", "text/plain; charset=utf-8", "Ja. Nein.\n"),
        (
            "srt",
            "text/plain; charset=utf-8",
            "1\n00:00:00,000 --> 00:00:01,000\nJa.\n\n2\n00:00:01,000 --> 00:00:02,500\nNein.\n\n",
        ),
        (
            "vtt",
            "text/vtt; charset=utf-8",
            "WEBVTT\n\n00:00.000 --> 00:01.000\nJa.\n\n00:01.000 --> 00:02.500\nNein.\n\n",
        ),
    ] {
        let answered = hear(&script, TRANSCRIPTIONS, &[("response_format", format)]).await;
        assert_eq!(
            (answered.headers["content-type"].to_str().unwrap(), &*answered.text),
            (kind, text)
        );
    }
    let verbose = ("response_format", "verbose_json");
    let answer = hear(&script, TRANSCRIPTIONS, &[verbose]).await.json();
    assert_eq!(answer["language"], "german");
    assert_eq!((&answer["task"], &answer["duration"]), (&json!("transcribe"), &json!(2.5)));
    assert_eq!(answer["segments"][1]["text"], " Nein.");
    assert!(answer.get("words").is_none());
    let both =
        [verbose, ("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")];
    let answer = hear(&script, TRANSCRIPTIONS, &both).await.json();
    assert_eq!(answer["words"][1], json!({"word": "Nein.", "start": 1.0, "end": 2.5}));
    assert_eq!(answer["segments"].as_array().unwrap().len(), 2);
    let answer = hear(&script, TRANSCRIPTIONS, &both[..2]).await.json();
    assert!(answer.get("segments").is_none() && answer["words"].is_array());
    let answer = hear(&script, TRANSLATIONS, &[verbose]).await.json();
    assert_eq!((&answer["task"], &answer["language"]), (&json!("translate"), &json!("english")));
}

#[tokio::test]
async fn a_form_reaches_the_engine_whole() {
    let script = Script::new();
    let fields = [
        ("language", "German"),
        ("prompt", "Über"),
        ("hotwords", "Köln"),
        ("temperature", "0.6"),
        ("vad_filter", "False"),
        ("condition_on_previous_text", "false"),
        ("no_speech_threshold", "0.5"),
        ("seed", "7"),
        ("user", "me"),
    ];
    hear(&script, TRANSLATIONS, &fields).await.json();
    let request = script.transcribed();
    assert_eq!((&*request.model, &request.audio[..]), ("m", &b"RIFF"[..]));
    let text = |text: &str| Some(text.to_owned());
    let expected = TranscribeOptions {
        language: text("de"),
        task: SpeechTask::Translate,
        prompt: text("Über"),
        hotwords: text("Köln"),
        temperatures: vec![0.6, 0.8, 1.0],
        no_speech_threshold: Some(0.5),
        condition: false,
        vad: false,
        seed: Some(7),
        ..TranscribeOptions::default()
    };
    assert_eq!(request.options, expected);
    let strategy = r#"{"type": "server_vad"}"#;
    let strategies: [&[(&str, &str)]; 3] = [
        &[("chunking_strategy", "auto")],
        &[("chunking_strategy", strategy)],
        &[("chunking_strategy[type]", "server_vad"), ("language", ""), ("temperature", "0")],
    ];
    for fields in strategies {
        hear(&script, TRANSCRIPTIONS, fields).await.json();
        assert_eq!(script.transcribed().options, TranscribeOptions::default());
    }
}

#[tokio::test]
async fn a_stream_has_the_text_in_deltas_and_as_a_whole() {
    let script = Script::new();
    let answered = hear(&script, TRANSCRIPTIONS, &[("stream", "true")]).await;
    assert_eq!(answered.headers["content-type"], "text/event-stream");
    let delta = |text: &str| json!({"type": "transcript.text.delta", "delta": text});
    let done = json!({"type": "transcript.text.done", "text": "Ja. Nein."});
    assert_eq!(answered.events(), [delta("Ja."), delta(" Nein."), done]);
    let fields = [("stream", "true"), ("model", "breaks")];
    let app = App::new(script.clone(), settings());
    let answered = post_form(&app, TRANSCRIPTIONS, Some(b"RIFF"), &fields).await;
    let events = answered.events();
    assert_eq!((answered.status.as_u16(), &events[0]), (200, &delta("Ja.")));
    assert_eq!(events[1]["error"]["message"], "model: failed");
    // An error before the first segment has a status of its own.
    let fields = [("stream", "true"), ("model", "deaf")];
    let answered = post_form(&app, TRANSCRIPTIONS, Some(b"RIFF"), &fields).await;
    assert_eq!(answered.refused(422), "org/deaf: writes text");
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_the_name_of_its_field() {
    let script = Script::new();
    for (name, value) in [
        ("language", "Klingon"),
        ("response_format", "docx"),
        ("response_format", "diarized_json"),
        ("temperature", "warm"),
        ("temperature", "1.5"),
        ("temperature", "nan"),
        ("timestamp_granularities[]", "word"),
        ("stream", "maybe"),
        ("vad_filter", "2"),
        ("include[]", "logprobs"),
        ("chunking_strategy", "server_vad"),
        ("chunking_strategy[threshold]", "0.5"),
        ("known_speaker_names[]", "Ada"),
        ("beam_size", "5"),
        ("prompt[]", "a"),
    ] {
        let answered = hear(&script, TRANSCRIPTIONS, &[(name, value)]).await;
        assert_eq!(answered.status, 400, "{name} {value}: {}", answered.text);
        let param = answered.json()["error"]["param"].as_str().unwrap().to_owned();
        let field = name.split('[').next().unwrap();
        assert!(param.starts_with(field), "{name} {value}: {param}");
    }
    for fields in [
        vec![("response_format", "srt"), ("stream", "true")],
        vec![("language", "de"), ("language", "en")],
    ] {
        hear(&script, TRANSCRIPTIONS, &fields).await.refused(400);
    }
}

#[tokio::test]
async fn a_form_without_audio_gets_one_clear_error() {
    let app = App::new(Script::new(), settings());
    for (file, message) in [(None, "`file` is missing"), (Some(&b""[..]), "`file` is empty")] {
        let answered = post_form(&app, TRANSCRIPTIONS, file, &[("model", "m")]).await;
        assert_eq!(answered.refused(400), message);
        assert_eq!(answered.json()["error"]["param"], "file");
    }
    let answered = post(&app, TRANSCRIPTIONS, json!({"model": "m"})).await;
    assert!(answered.refused(400).contains("not a form"), "{}", answered.text);
    let cut = "--AaB03x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nRIFF";
    for body in [cut, "", "--other\r\n\r\n"] {
        let request = Request::post(TRANSCRIPTIONS)
            .header("content-type", "multipart/form-data; boundary=AaB03x")
            .body(Body::from(body))
            .unwrap();
        ask(&app, request).await.refused(400);
    }
}

#[tokio::test]
async fn audio_has_a_limit_of_its_own() {
    let app = App::new(Script::new(), Settings { max_body: 100, max_audio: 3 << 20, ..settings() });
    // Larger than the limit that a body has in the framework.
    let most = vec![1; 3 << 20];
    let answered = post_form(&app, TRANSCRIPTIONS, Some(&most), &[("model", "m")]).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    for size in [(3 << 20) + 1, 4 << 20] {
        let answered =
            post_form(&app, TRANSCRIPTIONS, Some(&vec![1; size]), &[("model", "m")]).await;
        assert!(answered.refused(413).contains("--max-audio"), "{}", answered.text);
    }
    let long = "a".repeat(300 << 10);
    let answered = post_form(&app, TRANSCRIPTIONS, Some(b"RIFF"), &[("prompt", &long)]).await;
    assert!(answered.refused(400).contains("besides its file"), "{}", answered.text);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_transcription() {
    let script = Script::new().pace(Duration::from_secs(60));
    let app = App::new(script.clone(), settings());
    let asked = hear_once(app.clone());
    tokio::time::timeout(Duration::from_millis(50), asked).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let metrics = app_metrics(&app).await;
    assert!(metrics.contains("requests_running 0"), "{metrics}");
    assert!(metrics.contains("answers_total{reason=\"cancelled\"} 1"), "{metrics}");
}

async fn hear_once(app: Arc<App>) -> Answered {
    post_form(&app, TRANSCRIPTIONS, Some(b"RIFF"), &[("model", "m")]).await
}

async fn app_metrics(app: &Arc<App>) -> String {
    mlxk_testengine::get(app, "/metrics").await.text
}
