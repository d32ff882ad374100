//! Fields of bodies that no parser takes, as data that is the same for all APIs and at all depths of
//! a body: hints, values that ask for nothing, and fields whose effect another field has here. Any
//! other field could change the answer, and is refused.

use serde_json::Value;

/// Hints: fields that change no answer here. They concern storage, billing, caches, scheduling and
/// tools that only another server runs, or ask for a style that is the model's own.
pub const HINTS: [&str; 43] = [
    "access_programs",
    "background_options",
    "betas",
    "billing_policy",
    "cache_control",
    "cache_prompt",
    "client_metadata",
    "context_management",
    "diagnostics",
    "eager_input_streaming",
    "fallback_credit_token",
    "fallbacks",
    "id_slot",
    "include_obfuscation",
    "inference_geo",
    "keep_alive",
    "max_tool_calls",
    "metadata",
    "prediction",
    "priority",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "provider",
    "request_id",
    "return_progress",
    "route",
    "safety_identifier",
    "service_tier",
    "session_id",
    "slot_id",
    "speed",
    "store",
    "timings_per_token",
    "trace",
    "transforms",
    "truncation",
    "usage",
    "user",
    "user_id",
    "user_profile_id",
    "verbosity",
    "workspace_id",
];

/// Fields of other servers with the values that ask for what happens here anyway, as JSON.
const NEUTRAL: [(&str, &str); 17] = [
    ("add_generation_prompt", "true"),
    ("add_special_tokens", "false"),
    ("best_of", "1"),
    ("continue_final_message", "false"),
    ("continuous_usage_stats", "false"),
    ("do_sample", "true"),
    ("echo", "false"),
    ("ignore_eos", "false"),
    ("include_reasoning", "true"),
    ("include_stop_str_in_output", "false"),
    ("length_penalty", "1"),
    ("min_tokens", "0"),
    ("mirostat", "0"),
    ("n", "1"),
    ("skip_special_tokens", "true"),
    ("stop_token_ids", "[]"),
    ("use_beam_search", "false"),
];

/// Names by which clients ask for what another field does here, with that field in each API that
/// has one.
const RENAMED: [(&str, &[&str]); 29] = [
    ("enable_thinking", &["chat_template_kwargs", "reasoning", "thinking"]),
    ("effort", &["reasoning_effort", "reasoning", "output_config"]),
    ("function_call", &["tool_choice"]),
    ("functions", &["tools"]),
    ("guided_choice", &["json_schema", "text", "output_config"]),
    ("guided_grammar", &["grammar"]),
    ("guided_json", &["json_schema", "text", "output_config"]),
    ("guided_regex", &["grammar"]),
    ("input", &["messages", "prompt"]),
    ("instructions", &["system", "messages"]),
    ("json_schema", &["text", "output_config"]),
    ("max_completion_tokens", &["max_tokens", "max_output_tokens"]),
    ("max_new_tokens", &["max_completion_tokens", "max_tokens", "max_output_tokens"]),
    ("max_output_tokens", &["max_completion_tokens", "max_tokens"]),
    ("max_tokens", &["max_output_tokens"]),
    ("messages", &["input", "prompt"]),
    ("n_predict", &["max_completion_tokens", "max_tokens", "max_output_tokens"]),
    ("num_predict", &["max_completion_tokens", "max_tokens", "max_output_tokens"]),
    ("prompt", &["messages", "input"]),
    ("reasoning_effort", &["reasoning", "output_config"]),
    ("repeat_last_n", &["penalty_context"]),
    ("repeat_penalty", &["repetition_penalty"]),
    ("response_format", &["text", "output_config", "json_schema"]),
    ("stop", &["stop_sequences"]),
    ("stop_sequences", &["stop"]),
    ("stop_token_ids", &["stop_ids"]),
    ("structured_outputs", &["json_schema", "text", "output_config"]),
    ("system", &["instructions", "messages"]),
    ("typ_p", &["typical_p"]),
];

/// True if a field with this value changes no answer.
pub fn is_hint(name: &str, value: &Value) -> bool {
    let equals = |neutral: Value| {
        neutral == *value || neutral.is_number() && neutral.as_f64() == value.as_f64()
    };
    let neutral = |(other, neutral): &(&str, &str)| {
        *other == name && serde_json::from_str(neutral).is_ok_and(equals)
    };
    value.is_null() || HINTS.contains(&name) || NEUTRAL.iter().any(neutral)
}

/// The field that has the effect of the field `name`, if `known`, the fields of an API, has one.
pub fn renamed(name: &str, known: impl Fn(&str) -> bool) -> Option<&'static str> {
    let (_, others) = RENAMED.iter().find(|(other, _)| *other == name)?;
    others.iter().find(|other| known(other)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_and_the_description_list_all_hints() {
        let manual = include_str!("../../../man/mlxk-serve.1");
        for hint in HINTS {
            let lists = |line: &str| line.split([' ', ',', '.']).any(|word| word == hint);
            assert!(manual.lines().any(lists), "man/mlxk-serve.1: {hint}");
        }
        let description = include_str!("openapi.json");
        let pattern = format!("\"patternProperties\": {{\"^({})$\": {{}}}}", HINTS.join("|"));
        assert_eq!(description.matches(&pattern).count(), 5, "{pattern}");
    }
}
