//! OpenAI's responses. They are stateless: each request brings its whole conversation.

use std::collections::BTreeSet;

use mlxk_processor::request::{Prompt, Request, Rules, SchemaFields};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::job::{self, Job};
use crate::openai::input::Input;
use crate::openai::responses_format::ResponsesFormat;
use crate::openai::tools::{Choice, Tools, function_name, parallel_tool_calls};
use crate::openai::{messages, response_format};

/// Fields of the body that the response repeats.
const ECHOED: [&str; 10] = [
    "model",
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
];

/// Parses the body of a response.
pub fn parse(mut fields: Fields) -> Result<Job, ApiError> {
    let echo = fields.copy(&ECHOED);
    let model = job::model(&mut fields)?;
    let Input { messages, tools: more_tools, mut omitted } = input(&mut fields)?;
    let mut conversation = messages::parse(messages)?;
    let mut options = job::options(&mut fields)?;
    options.max_tokens = fields.integer("max_output_tokens", 1, u64::MAX)?;
    options.logprobs = top_logprobs(&mut fields)?;
    let logprobs = options.logprobs.is_some();
    let rules = json_schema(&mut fields)?.map(Rules::Schema);
    conversation.variables = reasoning(&mut fields)?;
    let schema_fields = SchemaFields { text: "text.format.schema", ..SchemaFields::default() };
    let request = Request::new(Prompt::Chat(conversation));
    let request = Request { model, options, rules, schema_fields, ..request };
    let mut tools = Tools::parse(&mut fields)?;
    let names = tools.functions.iter().filter_map(function_name);
    let known: BTreeSet<String> = names.map(str::to_owned).collect();
    for (place, tool) in more_tools {
        if !tool["name"].as_str().is_some_and(|name| known.contains(name)) {
            tools.add(&tool, &place)?;
        }
    }
    omitted.extend(&tools.omitted());
    let format = Box::new(ResponsesFormat::new(echo, logprobs, tools.origins.clone()));
    let request = tools.into_request(request, Choice::parse(&mut fields)?)?;
    let parallel_tool_calls = parallel_tool_calls(&mut fields)?;
    let stream = fields.boolean("stream")?;
    if let Some(mut options) = fields.object("stream_options")? {
        // Every response has its usage.
        options.ignore(&["include_usage"]);
        options.finish()?;
    }
    fields.only("background", &[json!(false)])?;
    fields.finish()?;
    let requests = Box::new(job::requests(request, 1));
    Ok(Job {
        requests,
        count: 1,
        count_field: "input",
        parallel_tool_calls,
        stream,
        format,
        omitted,
    })
}

/// Takes `instructions` and `input`.
fn input(fields: &mut Fields) -> Result<Input, ApiError> {
    let mut input = Input::default();
    if let Some(system) = fields.text("instructions")? {
        let message = json!({"role": "system", "content": system});
        input.messages.push(("instructions".into(), message));
    }
    match fields.take("input") {
        Some(Value::String(text)) => {
            input.messages.push(("input".into(), json!({"role": "user", "content": text})));
        }
        Some(Value::Array(items)) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                input.add(item, &format!("input[{index}]"))?;
            }
        }
        None => return Err(ApiError::invalid("`input` is missing")),
        Some(_) => return Err(ApiError::invalid_field("input", "a text or a list of items")),
    }
    if input.messages.is_empty() {
        return Err(ApiError::invalid("`input` has no message"));
    }
    Ok(input)
}

/// Takes `include` and `top_logprobs`: the number of most likely tokens at each position, or none
/// without log probabilities.
fn top_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let include = fields.read("include", "a list of texts", |value| value.as_array().cloned())?;
    // Other values ask for more of tools that do not run here.
    let included =
        include.is_some_and(|include| include.contains(&json!("message.output_text.logprobs")));
    let top = job::top_logprobs(fields, "top_logprobs")?;
    Ok((included || top.is_some_and(|top| top > 0)).then(|| top.unwrap_or(0)))
}

/// Takes `text`: the JSON schema of the answer.
fn json_schema(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(mut text) = fields.object("text")? else { return Ok(None) };
    let format = text.object("format")?;
    text.finish()?;
    format.map_or(Ok(None), response_format::parse)
}

/// Takes `reasoning`: the variables of the chat template for an effort.
pub fn reasoning(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let Some(mut reasoning) = fields.object("reasoning")? else { return Ok(Map::new()) };
    let given = reasoning.text("effort")?;
    // The response has the reasoning itself instead of a summary.
    reasoning.ignore(&["summary", "generate_summary"]);
    let enabled = reasoning.read("enabled", "true or false", Value::as_bool)?;
    reasoning.finish()?;
    let mut variables = given.map(effort).unwrap_or_default();
    if let Some(enabled) = enabled {
        variables.insert("enable_thinking".into(), enabled.into());
    }
    Ok(variables)
}

/// The variables of the chat template for an effort of reasoning.
pub fn effort(effort: String) -> Map<String, Value> {
    let enabled = effort != "none";
    let variables = [("enable_thinking", enabled.into()), ("reasoning_effort", effort.into())];
    variables.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}
