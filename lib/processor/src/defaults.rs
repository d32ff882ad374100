//! How a model's makers recommend to sample from it, in its generation_config.json.

use mlxk_core::{Error, Facts, Kind, Result};
use serde_json::Value;

use crate::sampling::Sampling;
use crate::text::tokenizer::Tokenizer;

/// What holds for requests that do not say otherwise: what the makers recommend, else what suits
/// most models.
///
/// # Errors
/// If the file has a field that is not what it has to be.
pub fn defaults(facts: &Facts, tokenizer: &Tokenizer) -> Result<Sampling> {
    let sampling = read(&|key| facts.generation_config.get(key).filter(|value| !value.is_null()));
    let sampling = sampling.and_then(|sampling| sampling.check().map(|()| sampling));
    let mut sampling = sampling.map_err(|mut e| {
        e.kind = Kind::InvalidModel;
        e.subject = facts.path("generation_config.json").display().to_string();
        e
    })?;
    // An answer could not end, nor a line, if these were dropped for being likely.
    sampling.xtc_spared = tokenizer.ends().chain(tokenizer.encode("\n")?).collect();
    Ok(sampling)
}

fn read(get: &dyn Fn(&str) -> Option<Value>) -> Result<Sampling> {
    let wrong = |key: &str, what: &str, value: &Value| {
        Error::new(Kind::InvalidModel, "", format!("`{key}` is not {what}: {value}"))
    };
    let number = |key: &str, or: f32| match get(key) {
        None => Ok(or),
        Some(value) => {
            value.as_f64().map(|number| number as f32).ok_or_else(|| wrong(key, "a number", &value))
        }
    };
    let top_k = match get("top_k") {
        None => 0,
        Some(value) => {
            value.as_u64().ok_or_else(|| wrong("top_k", "a whole number from 0", &value))?
        }
    };
    let greedy = get("do_sample") == Some(Value::Bool(false));
    Ok(Sampling {
        temperature: if greedy { 0.0 } else { number("temperature", 0.7)? },
        top_p: number("top_p", 0.9)?,
        top_k: u32::try_from(top_k).unwrap_or(u32::MAX),
        min_p: number("min_p", 0.0)?,
        repetition_penalty: number("repetition_penalty", 1.0)?,
        ..Sampling::GREEDY
    })
}
