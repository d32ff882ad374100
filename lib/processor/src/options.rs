//! How an answer is to be chosen: the wishes of a caller over what the model has for its own.

use std::collections::BTreeMap;

use mlxk_core::{Error, Kind, Result};
use serde_json::Value;

use crate::fields::{Fields, wrong};
use crate::sampling::Sampling;

/// Wishes for an answer; what is not wished is the model's to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// At most this many tokens.
    pub max_tokens: Option<u64>,
    /// See [`Sampling`].
    pub temperature: Option<f32>,
    /// See [`Sampling`].
    pub top_p: Option<f32>,
    /// See [`Sampling`].
    pub top_k: Option<u32>,
    /// See [`Sampling`].
    pub min_p: Option<f32>,
    /// See [`Sampling`].
    pub xtc_probability: Option<f32>,
    /// See [`Sampling`].
    pub xtc_threshold: Option<f32>,
    /// See [`Sampling`].
    pub repetition_penalty: Option<f32>,
    /// See [`Sampling`].
    pub presence_penalty: Option<f32>,
    /// See [`Sampling`].
    pub frequency_penalty: Option<f32>,
    /// See [`Sampling`].
    pub penalty_context: Option<u32>,
    /// See [`Sampling`].
    pub logit_bias: BTreeMap<u32, f32>,
    /// See [`Sampling`].
    pub seed: Option<u64>,
    /// See [`Sampling`].
    pub logprobs: Option<u32>,
    /// Strings that end the answer and are no part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer and are no part of it, besides those of the model.
    pub stop_ids: Vec<u32>,
}

impl Options {
    /// Reads the fields of a record, with `or` where there are none.
    ///
    /// # Errors
    /// [`Kind::Validation`] if a field has a value that it cannot have.
    pub fn parse(fields: &Fields, or: &Options) -> Result<Options> {
        let number = |name, or: Option<f32>| Ok::<_, Error>(fields.number(name)?.or(or));
        let count = |name, or: Option<u32>| Ok::<_, Error>(fields.count(name)?.or(or));
        let options = Options {
            max_tokens: fields.whole("max_tokens")?.or(or.max_tokens),
            temperature: number("temperature", or.temperature)?,
            top_p: number("top_p", or.top_p)?,
            top_k: count("top_k", or.top_k)?,
            min_p: number("min_p", or.min_p)?,
            xtc_probability: number("xtc_probability", or.xtc_probability)?,
            xtc_threshold: number("xtc_threshold", or.xtc_threshold)?,
            repetition_penalty: number("repetition_penalty", or.repetition_penalty)?,
            presence_penalty: number("presence_penalty", or.presence_penalty)?,
            frequency_penalty: number("frequency_penalty", or.frequency_penalty)?,
            penalty_context: count("penalty_context", or.penalty_context)?,
            logit_bias: fields
                .read("logit_bias", "an object of numbers by token", biases)?
                .unwrap_or_else(|| or.logit_bias.clone()),
            seed: fields.whole("seed")?.or(or.seed),
            logprobs: count("logprobs", or.logprobs)?,
            stop: fields
                .read("stop", "a text or a list of texts", texts)?
                .unwrap_or_else(|| or.stop.clone()),
            stop_ids: fields
                .read("stop_ids", "a list of tokens", tokens)?
                .unwrap_or_else(|| or.stop_ids.clone()),
        };
        options.check()?;
        Ok(options)
    }

    /// Refuses values that mean nothing.
    pub fn check(&self) -> Result<()> {
        self.over(&Sampling::GREEDY, 0).check()?;
        match self.max_tokens {
            Some(0) => Err(wrong("max_tokens", "a whole number from 1")),
            _ => Ok(()),
        }
    }

    /// How to sample, with `default` for what is not wished; without a seed one is drawn.
    pub fn sampling(&self, default: &Sampling) -> Result<Sampling> {
        let seed = self.seed.map_or_else(draw_seed, Ok)?;
        Ok(self.over(default, seed))
    }

    fn over(&self, default: &Sampling, seed: u64) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_p: self.top_p.unwrap_or(default.top_p),
            top_k: self.top_k.unwrap_or(default.top_k),
            min_p: self.min_p.unwrap_or(default.min_p),
            xtc_probability: self.xtc_probability.unwrap_or(default.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(default.xtc_threshold),
            xtc_spared: default.xtc_spared.clone(),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            penalty_context: self.penalty_context.unwrap_or(default.penalty_context),
            logit_bias: self.logit_bias.iter().map(|(&id, &bias)| (id, bias)).collect(),
            seed,
            logprobs: self.logprobs.or(default.logprobs),
        }
    }
}

/// A seed that every JSON reader can represent: below 2^53.
fn draw_seed() -> Result<u64> {
    getrandom::u64()
        .map(|seed| seed >> 11)
        .map_err(|e| Error::new(Kind::Execution, "", format!("no seed can be drawn: {e}")))
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(all) => all.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn tokens(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(token).collect()
}

fn biases(value: &Value) -> Option<BTreeMap<u32, f32>> {
    let bias = |(id, bias): (&String, &Value)| Some((id.parse().ok()?, bias.as_f64()? as f32));
    value.as_object()?.iter().map(bias).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_seed_can_be_told_and_given_back() {
        let draw = || Options::default().sampling(&Sampling::GREEDY).unwrap();
        assert!(draw().seed < 1 << 53);
        assert_ne!(draw().seed, draw().seed);
        let known = Options { seed: Some(3), ..Options::default() };
        assert_eq!(known.sampling(&Sampling::GREEDY).unwrap().seed, 3);
    }
}
