//! Defaults of sampling: the recommendation of a model's makers in generation_config.json.

use mlxk_core::generation_config::GenerationConfig;
use mlxk_core::{Error, Facts, Result};

use crate::sampling::{Options, Sampling};
use crate::text::tokenizer::Tokenizer;

/// Default sampling parameters of requests: those that generation_config.json recommends, otherwise
/// temperature 0.7 and top-p 0.9.
///
/// # Errors
/// [`InvalidModel`](mlxk_core::Kind::InvalidModel) if the file has a field of another form or out of
/// its range.
pub fn defaults(facts: &Facts, tokenizer: &Tokenizer) -> Result<Sampling> {
    let recommended = GenerationConfig::read(&facts.generation_config).map_err(|reason| {
        let path = facts.path("generation_config.json").display().to_string();
        Error::invalid_model(path, reason)
    })?;
    let options = Options {
        temperature: recommended.temperature,
        top_p: recommended.top_p,
        top_k: recommended.top_k,
        min_p: recommended.min_p,
        repetition_penalty: recommended.repetition_penalty,
        seed: Some(0),
        ..Options::default()
    };
    let unset = Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::GREEDY };
    let mut sampling = options.sampling(&unset)?;
    // XTC must not drop these: otherwise neither a completion nor a line could end.
    sampling.xtc_spared = tokenizer.ends().chain(tokenizer.encode("\n")?).collect();
    Ok(sampling)
}
