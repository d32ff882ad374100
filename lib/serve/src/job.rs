//! What a body asks for, whichever API it is of.

use std::sync::Arc;

use mlxk_core::Record;
use serde_json::{Value, json};

use crate::engine::Request;
use crate::error::Refusal;
use crate::fields::Fields;
use crate::format::Wording;

/// Answers to one request at most.
const MOST: u64 = 128;

/// What a body asks for.
pub struct Task {
    /// One for each answer, made when it is taken: many may be asked for that cannot be had.
    pub requests: Box<dyn Iterator<Item = Request> + Send>,
    /// How many these are, and the field that says so.
    pub count: (u64, &'static str),
    /// Whether calls after the first are left out.
    pub single: bool,
    /// Whether answers are told as they come.
    pub stream: bool,
    /// How they are told.
    pub wording: Box<dyn Wording>,
}

/// The model that is asked.
pub fn model(fields: &mut Fields) -> Result<String, Refusal> {
    let model = fields.text("model")?.filter(|model| !model.trim().is_empty());
    model.ok_or_else(|| Refusal::invalid("`model` is missing"))
}

/// How tokens are chosen: fields that have the same name in all APIs and in records.
pub fn choice(fields: &mut Fields, mut record: Record) -> Result<Record, Refusal> {
    let seed = fields.read("seed", "a whole number", |value| {
        // Any 64 bits are a seed, with a sign or without.
        value.as_u64().or_else(|| value.as_i64().map(|seed| seed as u64))
    })?;
    if let Some(seed) = seed {
        record = record.with("seed", seed);
    }
    let names = [
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
    Ok(fields.pass(&names, record))
}

/// `n` requests to `model`, each with a seed of its own.
pub fn repeated(
    model: String,
    raw: bool,
    record: Record,
    n: u64,
) -> impl Iterator<Item = Request> + Send {
    let seed = record.get("seed").and_then(Value::as_u64);
    let record = Arc::new(record);
    (0..n).map(move |number| {
        let seed = seed.map(|seed| seed.wrapping_add(number));
        Request { model: model.clone(), raw, record: record.clone(), seed }
    })
}

/// How many answers are wanted.
pub fn count(fields: &mut Fields) -> Result<u64, Refusal> {
    Ok(fields.whole("n", 1, MOST)?.unwrap_or(1))
}

/// Whether answers are told as they come, and with a count of tokens at the end.
pub fn stream(fields: &mut Fields) -> Result<(bool, bool), Refusal> {
    let stream = fields.truth("stream")?;
    let Some(mut options) = fields.object("stream_options")? else { return Ok((stream, false)) };
    if !stream {
        return Err(Refusal::invalid("`stream_options` goes with `stream`"));
    }
    let usage = options.truth("include_usage")?;
    options.only("include_obfuscation", &[json!(false)])?;
    options.finish("`stream_options`")?;
    Ok((stream, usage))
}
