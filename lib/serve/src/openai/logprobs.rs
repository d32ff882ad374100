//! Log probabilities in the form of OpenAI's chat completions and responses.

use serde_json::{Value, json};

use crate::engine::Likelihood;
use crate::format::TokenLogprobs;

/// A token's log probability, with the most likely tokens at its position in `top_logprobs`.
pub fn logprobs((own, top): &TokenLogprobs) -> Value {
    let mut value = token(own);
    value["top_logprobs"] = top.iter().map(token).collect();
    value
}

fn token(token: &Likelihood) -> Value {
    json!({"token": token.text, "logprob": token.logprob, "bytes": token.bytes})
}
