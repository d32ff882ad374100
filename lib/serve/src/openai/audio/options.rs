//! Options of a transcription, parsed from the fields of its form.

use std::str::FromStr;

use mlxk_processor::transcript::{SpeechTask, TranscribeOptions, language};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;

/// Steps between the temperatures that are tried one after another, up to 1, as in openai-whisper.
const TEMPERATURE_STEP: f32 = 0.2;

/// Parsed form of a transcription.
pub struct Wanted {
    /// Name of the model; empty for the one in memory.
    pub model: String,
    /// How the speech is decoded.
    pub options: TranscribeOptions,
    /// Format of the response.
    pub format: AudioFormat,
    /// True if the response is a stream.
    pub stream: bool,
}

/// Format of the response to a transcription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudioFormat {
    /// A JSON document with the text.
    Json,
    /// The text alone.
    Text,
    /// SubRip subtitles.
    Srt,
    /// WebVTT subtitles.
    Vtt,
    /// A JSON document with the text and its times.
    Verbose {
        /// True if it has the segments.
        segments: bool,
        /// True if it has the words.
        words: bool,
    },
}

/// Parses the fields of a form.
///
/// # Errors
/// If a field is invalid or not supported.
pub fn parse(mut fields: Fields, task: SpeechTask) -> Result<Wanted, ApiError> {
    let model = fields.text("model")?.unwrap_or_default();
    let (stream, format) =
        (boolean(&mut fields, "stream")?.unwrap_or_default(), format(&mut fields)?);
    if stream && !matches!(format, AudioFormat::Json | AudioFormat::Text) {
        let message = "`stream` goes with the `response_format` json or text";
        return Err(ApiError::invalid(message));
    }
    let default = TranscribeOptions::default();
    let language = fields.text("language")?;
    let language = language.map(|text| language::parse(&text)).transpose()?.flatten();
    let speech_only = speech_only(&mut fields)?;
    let mut options = TranscribeOptions {
        language: language.map(str::to_owned),
        task,
        prompt: fields.text("prompt")?,
        hotwords: fields.text("hotwords")?,
        temperatures: temperatures(&mut fields)?.unwrap_or(default.temperatures),
        condition: boolean(&mut fields, "condition_on_previous_text")?.unwrap_or(default.condition),
        words: matches!(format, AudioFormat::Verbose { words: true, .. }),
        vad: boolean(&mut fields, "vad_filter")?.unwrap_or(speech_only || default.vad),
        seed: number(&mut fields, "seed", "a whole number")?,
        ..TranscribeOptions::default()
    };
    for (name, value) in [
        ("compression_ratio_threshold", &mut options.compression_ratio_threshold),
        ("log_prob_threshold", &mut options.logprob_threshold),
        ("no_speech_threshold", &mut options.no_speech_threshold),
    ] {
        if let Some(stated) = finite(&mut fields, name)? {
            *value = Some(stated);
        }
    }
    include(&mut fields)?;
    fields.finish()?;
    Ok(Wanted { model, options, format, stream })
}

/// Takes `response_format` and `timestamp_granularities`.
fn format(fields: &mut Fields) -> Result<AudioFormat, ApiError> {
    let name = fields.text("response_format")?.unwrap_or_else(|| "json".to_owned());
    let granularities =
        fields.read("timestamp_granularities", "a list of \"segment\" and \"word\"", |value| {
            let names = list(value)?;
            let known = names.iter().all(|name| ["segment", "word"].contains(name));
            known.then(|| (names.contains(&"segment"), names.contains(&"word")))
        })?;
    let format = match &*name {
        "json" => AudioFormat::Json,
        "text" => AudioFormat::Text,
        "srt" => AudioFormat::Srt,
        "vtt" => AudioFormat::Vtt,
        "verbose_json" => {
            let (segments, words) = granularities.unwrap_or((true, false));
            return Ok(AudioFormat::Verbose { segments, words });
        }
        "diarized_json" => {
            let message = "`response_format`: models here do not tell speakers apart";
            return Err(ApiError::invalid(message));
        }
        _ => {
            let expected = "json, text, srt, vtt or verbose_json";
            return Err(ApiError::invalid_field("response_format", expected));
        }
    };
    match granularities {
        None => Ok(format),
        Some(_) => {
            let message = "`timestamp_granularities` goes with the `response_format` verbose_json";
            Err(ApiError::invalid(message))
        }
    }
}

/// Takes `temperature`: the first of the temperatures that are tried.
fn temperatures(fields: &mut Fields) -> Result<Option<Vec<f32>>, ApiError> {
    let first: Option<f32> = finite(fields, "temperature")?;
    let Some(first) = first else { return Ok(None) };
    if !(0.0..=1.0).contains(&first) {
        return Err(ApiError::invalid_field("temperature", "a number from 0 to 1"));
    }
    let steps = ((1.0 - first) / TEMPERATURE_STEP + 1e-3) as usize;
    Ok(Some((0..=steps).map(|step| first + step as f32 * TEMPERATURE_STEP).collect()))
}

/// Takes `chunking_strategy`: true if it asks for parts with speech to be found. That happens with the
/// server's own limits.
fn speech_only(fields: &mut Fields) -> Result<bool, ApiError> {
    let Some(value) = fields.take("chunking_strategy") else { return Ok(false) };
    let object = match value {
        Value::String(text) if text == "auto" => return Ok(true),
        Value::String(text) => serde_json::from_str(&text).unwrap_or_default(),
        value => value,
    };
    if !object.is_object() {
        return Err(ApiError::invalid_field("chunking_strategy", "\"auto\" or an object"));
    }
    let mut object = fields.element(object, "chunking_strategy".to_owned())?;
    object.only("type", &[json!("server_vad"), json!("auto")])?;
    object.finish()?;
    Ok(true)
}

/// Takes `include`, of which nothing is supported.
fn include(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.take("include") {
        None => Ok(()),
        Some(_) => {
            let message = "`include`: log probabilities of tokens are not told; `verbose_json` has \
                           those of segments";
            Err(ApiError::invalid(message))
        }
    }
}

/// The texts of a list, or one text.
fn list(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(text.split(',').map(str::trim).collect()),
        Value::Array(all) => all.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn boolean(fields: &mut Fields, name: &str) -> Result<Option<bool>, ApiError> {
    fields.read(name, "true or false", |value| match &*value.as_str()?.to_lowercase() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    })
}

fn number<T: FromStr>(
    fields: &mut Fields,
    name: &str,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    fields.read(name, expected, |value| value.as_str()?.trim().parse().ok())
}

fn finite(fields: &mut Fields, name: &str) -> Result<Option<f32>, ApiError> {
    let number = number::<f32>(fields, name, "a number")?;
    match number {
        Some(number) if !number.is_finite() => Err(ApiError::invalid_field(name, "a number")),
        number => Ok(number),
    }
}
