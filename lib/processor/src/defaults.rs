//! Defaults of sampling: the recommendation of a model's makers in generation_config.json.

use mlxk_core::{Error, Facts, Kind, Result};

use crate::sampling::{Options, Sampling};
use crate::text::tokenizer::Tokenizer;

/// Fields of generation_config.json that are used.
const FIELDS: [&str; 5] = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"];

/// Default sampling parameters of requests: those that generation_config.json recommends, otherwise
/// temperature 0.7 and top-p 0.9.
///
/// # Errors
/// [`Kind::InvalidModel`] if the file has a field of another form or out of its range.
pub fn defaults(facts: &Facts, tokenizer: &Tokenizer) -> Result<Sampling> {
    let get = |name: &str| facts.generation_config.get(name).filter(|value| !value.is_null());
    let mut options = Options::default();
    for field in Options::fields().filter(|field| FIELDS.contains(&field.name)) {
        if let Some(value) = get(field.name) {
            field.set(&mut options, &value).map_err(|e| {
                let path = facts.path("generation_config.json").display().to_string();
                Error::new(Kind::InvalidModel, path, format!("{}: {value}", e.message))
            })?;
        }
    }
    if get("do_sample") == Some(false.into()) {
        options.temperature = Some(0.0);
    }
    let unset = Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::GREEDY };
    let mut sampling = Options { seed: Some(0), ..options }.sampling(&unset)?;
    // XTC must not drop these: otherwise neither a completion nor a line could end.
    sampling.xtc_spared = tokenizer.ends().chain(tokenizer.encode("\n")?).collect();
    Ok(sampling)
}
