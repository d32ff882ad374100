//! Jobs: the common result of parsing a body, whichever API it belongs to, and the fields that all
//! APIs share.

use mlxk_processor::Request;
use mlxk_processor::request::Options;
use mlxk_processor::sampling::FIELDS;
use serde_json::Value;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::format::Format;
use crate::omitted::Omitted;

/// Maximum value of `n`.
const MAX_N: u64 = 128;

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
    /// The types of the parts of the body that are left out.
    pub omitted: Omitted,
}

/// Takes the required field `model`.
pub fn model(fields: &mut Fields) -> Result<String, ApiError> {
    let model = fields.text("model")?.filter(|model| !model.trim().is_empty());
    model.ok_or_else(|| ApiError::invalid("`model` is missing"))
}

/// Takes the seed, and the options that have the same name in all APIs.
pub fn options(fields: &mut Fields) -> Result<Options, ApiError> {
    let seed = fields.read("seed", "a whole number", |value| {
        // A negative seed stands for the same 64 bits without a sign.
        value.as_u64().or_else(|| value.as_i64().map(|seed| seed as u64))
    })?;
    let mut options = Options { seed, ..Options::default() };
    for field in FIELDS {
        if let Some(mut value) = fields.take(field.name) {
            // Other servers have -1 for no limit.
            if field.name == "top_k" && value == -1 {
                value = 0.into();
            }
            field.set(&mut options, &value)?;
        }
    }
    Ok(options)
}

/// Takes the stop strings in the field `name`.
pub fn stop(fields: &mut Fields, name: &str) -> Result<Option<Vec<String>>, ApiError> {
    fields.read(name, "a text or a list of texts", |value| match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(all) => all.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    })
}

/// Takes the number of most likely tokens in log probabilities, in the field `name`.
pub fn top_logprobs(fields: &mut Fields, name: &str) -> Result<Option<u32>, ApiError> {
    Ok(fields.integer(name, 0, 20)?.map(|count| count as u32))
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
    options.finish()?;
    Ok((stream, include_usage))
}

/// Copies of a request for `n` completions; the seed of each one is higher than the last.
pub fn requests(request: Request, n: u64) -> impl Iterator<Item = Request> + Send {
    let seed = request.options.seed;
    (0..n).map(move |index| {
        let mut request = request.clone();
        request.options.seed = seed.map(|seed| seed.wrapping_add(index));
        request
    })
}
