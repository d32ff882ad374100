//! `generation_config.json`: the sampling that a model's makers recommend, and the tokens that end a
//! text.
//!
//! The policy and the engine read it here, so a model that is listed as runnable has no value that a
//! run refuses.

use serde_json::Value;

use crate::json::Document;
use crate::probe::Facts;

/// The recommended sampling; a field that is absent or null recommends nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// The temperature; 0 if `do_sample` is false.
    pub temperature: Option<f32>,
    /// The probability of nucleus sampling, from 0 to 1.
    pub top_p: Option<f32>,
    /// The number of most likely tokens to keep; 0, which -1 and other negative numbers mean too,
    /// keeps all.
    pub top_k: Option<u32>,
    /// The least probability of a token relative to the most likely one, from 0 to 1.
    pub min_p: Option<f32>,
    /// The divisor of the logits of recent tokens, above 0.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Reads the fields of `generation_config.json`. Numbers may be written as strings.
    ///
    /// # Errors
    /// If a value is of another form or out of its range; the message names the field.
    pub fn read(document: &Document) -> Result<GenerationConfig, String> {
        let within = |name: &str, min: f32, max: f32| -> Result<Option<f32>, String> {
            let Some(number) = number(document, name)? else { return Ok(None) };
            match number as f32 {
                value if (min..=max).contains(&value) => Ok(Some(value)),
                _ => Err(format!("`{name}` is out of range: {number}")),
            }
        };
        let greedy = document.get("do_sample") == Some(Value::Bool(false));
        let temperature = within("temperature", 0.0, f32::MAX)?;
        Ok(GenerationConfig {
            temperature: if greedy { Some(0.0) } else { temperature },
            top_p: within("top_p", 0.0, 1.0)?,
            top_k: count(document, "top_k")?,
            min_p: within("min_p", 0.0, 1.0)?,
            repetition_penalty: within("repetition_penalty", f32::MIN_POSITIVE, f32::MAX)?,
        })
    }
}

/// The tokens that `eos_token_id` names, in the first of `generation_config.json` and `config.json`
/// that has the field: a number, or a list of numbers. Null and negative numbers name none, and
/// numbers may be written as strings.
///
/// # Errors
/// If the value has another form: the name of the file, and a message that names the field.
pub fn end_tokens(facts: &Facts) -> Result<Vec<u32>, (&'static str, String)> {
    let files =
        [("generation_config.json", &facts.generation_config), ("config.json", &facts.config)];
    let stated = files.into_iter().find_map(|(file, config)| {
        config.get("eos_token_id").filter(|ids| !ids.is_null()).map(|ids| (file, ids))
    });
    let Some((file, ids)) = stated else { return Ok(Vec::new()) };
    let tokens = match &ids {
        Value::Array(list) => list.iter().map(token).collect::<Option<Vec<_>>>(),
        one => token(one).map(|token| vec![token]),
    };
    let tokens = tokens.ok_or_else(|| {
        let shown: String = ids.to_string().chars().take(80).collect();
        (file, format!("`eos_token_id` is not a token or a list of tokens: {shown}"))
    })?;
    Ok(tokens.into_iter().flatten().collect())
}

/// The token that the value names, if it names one; nothing if it has another form.
fn token(value: &Value) -> Option<Option<u32>> {
    match value {
        Value::Null => Some(None),
        value => match whole(as_number(value)?)? {
            ..0 => Some(None),
            id => u32::try_from(id).ok().map(Some),
        },
    }
}

/// The number of the field `name`, negative numbers as 0 and large ones as the largest.
fn count(document: &Document, name: &str) -> Result<Option<u32>, String> {
    let Some(number) = number(document, name)? else { return Ok(None) };
    match whole(number) {
        Some(count) => Ok(Some(u32::try_from(count.max(0)).unwrap_or(u32::MAX))),
        None => Err(format!("`{name}` is not a whole number: {number}")),
    }
}

fn number(document: &Document, name: &str) -> Result<Option<f64>, String> {
    match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match as_number(&value) {
            Some(number) => Ok(Some(number)),
            None => {
                let shown: String = value.to_string().chars().take(80).collect();
                Err(format!("`{name}` is not a number: {shown}"))
            }
        },
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        value => value.as_f64(),
    }
}

fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0).then_some(number as i64) // saturates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GenerationConfig, String> {
        GenerationConfig::read(&Document::parse(text.as_bytes()))
    }

    #[test]
    fn odd_values_that_have_a_meaning_are_taken() {
        let top_k = |text| read(text).map(|config| config.top_k);
        for (text, expected) in [
            (r#"{"top_k": -1}"#, Some(0)),
            (r#"{"top_k": 20.0}"#, Some(20)),
            (r#"{"top_k": "20"}"#, Some(20)),
            (r#"{"top_k": null}"#, None),
            (r#"{"top_k": 99999999999}"#, Some(u32::MAX)),
        ] {
            assert_eq!(top_k(text), Ok(expected), "{text}");
        }
        assert_eq!(read(r#"{"temperature": "0.6"}"#).map(|c| c.temperature), Ok(Some(0.6)));
        let greedy = read(r#"{"do_sample": false, "temperature": 0.6}"#);
        assert_eq!(greedy.map(|c| c.temperature), Ok(Some(0.0)));
    }

    #[test]
    fn values_without_a_meaning_are_refused_by_name() {
        for (text, message) in [
            (r#"{"temperature": "hot"}"#, "`temperature` is not a number: \"hot\""),
            (r#"{"temperature": -1}"#, "`temperature` is out of range: -1"),
            (r#"{"top_p": 7}"#, "`top_p` is out of range: 7"),
            (r#"{"top_p": [1]}"#, "`top_p` is not a number: [1]"),
            (r#"{"top_k": 1.5}"#, "`top_k` is not a whole number: 1.5"),
            (r#"{"min_p": true}"#, "`min_p` is not a number: true"),
            (r#"{"repetition_penalty": 0}"#, "`repetition_penalty` is out of range: 0"),
        ] {
            assert_eq!(read(text).unwrap_err(), message, "{text}");
        }
    }
}
