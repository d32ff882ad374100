//! Log probabilities in the form of OpenAI's chat completions and responses.

use mlxk_processor::event::{Logprobs, TokenLogprob};
use serde_json::{Value, json};

/// A token's log probability, with the most likely tokens at its position in `top_logprobs`.
pub fn logprobs(Logprobs { token: chosen, top, .. }: &Logprobs) -> Value {
    let mut value = token(chosen);
    value["top_logprobs"] = top.iter().map(token).collect();
    value
}

fn token(token: &TokenLogprob) -> Value {
    json!({"token": token.text, "logprob": token.logprob, "bytes": token.bytes})
}
