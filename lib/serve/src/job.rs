//! Jobs: the common result of parsing a body, whichever API it belongs to, and the fields that all
//! APIs share.

use std::sync::Arc;

use mlxk_core::Record;
use serde_json::{Value, json};

use crate::engine::Request;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::Format;

/// Largest value of `n`.
const MAX_N: u64 = 128;

/// Options of sampling that have the same name in all APIs and in records; the engine validates
/// them.
const SAMPLING: [&str; 12] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "xtc_probability",
    "xtc_threshold",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "penalty_context",
    "logit_bias",
    "stop_ids",
];

/// A parsed body: its requests to the engine, and the format of the response.
pub struct Job {
    /// The requests, one for each completion. Each is made when it is submitted, as a body may ask
    /// for more of them than the queue holds.
    pub requests: Box<dyn Iterator<Item = Request> + Send>,
    /// Number of requests.
    pub count: u64,
    /// The field of the body that determines the number of requests.
    pub count_field: &'static str,
    /// True if a completion may have several tool calls; otherwise calls after its first are
    /// dropped.
    pub parallel_tool_calls: bool,
    /// True if the response is a stream.
    pub stream: bool,
    /// The format of the response.
    pub format: Box<dyn Format>,
}

/// Takes the required field `model`.
pub fn model(fields: &mut Fields) -> Result<String, ApiError> {
    let model = fields.text("model")?.filter(|model| !model.trim().is_empty());
    model.ok_or_else(|| ApiError::invalid("`model` is missing"))
}

/// Takes the seed and the options of sampling into a record.
pub fn sampling(fields: &mut Fields, mut record: Record) -> Result<Record, ApiError> {
    let seed = fields.read("seed", "a whole number", |value| {
        // A negative seed stands for the same 64 bits without a sign.
        value.as_u64().or_else(|| value.as_i64().map(|seed| seed as u64))
    })?;
    if let Some(seed) = seed {
        record = record.with("seed", seed);
    }
    Ok(fields.forward(&SAMPLING, record))
}

/// Takes `n`, the number of completions of each prompt; 1 if it is absent.
pub fn n(fields: &mut Fields) -> Result<u64, ApiError> {
    Ok(fields.integer("n", 1, MAX_N)?.unwrap_or(1))
}

/// Takes `stream` and `stream_options`: true if the response is a stream, and true if the stream
/// ends with the usage.
pub fn stream(fields: &mut Fields) -> Result<(bool, bool), ApiError> {
    let stream = fields.boolean("stream")?;
    let Some(mut options) = fields.object("stream_options")? else { return Ok((stream, false)) };
    if !stream {
        return Err(ApiError::invalid("`stream_options` goes with `stream`"));
    }
    let include_usage = options.boolean("include_usage")?;
    options.only("include_obfuscation", &[json!(false)])?;
    options.finish("`stream_options`")?;
    Ok((stream, include_usage))
}

/// `n` requests to `model` with the same record, the seed of each one higher than the last.
pub fn requests(
    model: String,
    raw: bool,
    record: Record,
    n: u64,
) -> impl Iterator<Item = Request> + Send {
    let seed = record.get("seed").and_then(Value::as_u64);
    let record = Arc::new(record);
    (0..n).map(move |index| {
        let seed = seed.map(|seed| seed.wrapping_add(index));
        Request { model: model.clone(), raw, record: record.clone(), seed }
    })
}
