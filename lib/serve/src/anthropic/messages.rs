//! Anthropic's messages.

use mlxk_processor::request::{Prompt, Request, Rules, SchemaFields, ToolChoice};
use serde_json::{Value, json};

use crate::anthropic::blocks::Input;
use crate::anthropic::format::MessagesFormat;
use crate::anthropic::tools;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::job::{self, Job};
use crate::omitted::Omitted;
use crate::openai::{messages, response_format};

/// Fields about tools that only Anthropic's servers run.
const SERVER_TOOLS: [&str; 2] = ["container", "mcp_servers"];

/// Parses the body of a message.
pub fn parse(mut fields: Fields) -> Result<Job, ApiError> {
    let max_tokens = fields.integer("max_tokens", 1, u64::MAX)?;
    let max_tokens = max_tokens.ok_or_else(|| ApiError::invalid("`max_tokens` is missing"))?;
    let Message { mut request, parallel_tool_calls, show_thinking, omitted } =
        message(&mut fields)?;
    request.options = job::options(&mut fields)?;
    request.options.max_tokens = Some(max_tokens);
    request.options.stop = job::stop(&mut fields, "stop_sequences")?;
    let stream = fields.boolean("stream")?;
    fields.finish()?;
    let format = Box::new(MessagesFormat::new(&request.model, show_thinking));
    let requests = Box::new(job::requests(request, 1));
    Ok(Job {
        requests,
        count: 1,
        count_field: "messages",
        parallel_tool_calls,
        stream,
        format,
        omitted,
    })
}

/// Parses the body of a request to count the tokens of a prompt, and tells what is left out.
pub fn parse_count(mut fields: Fields) -> Result<(Request, Omitted), ApiError> {
    let Message { request, omitted, .. } = message(&mut fields)?;
    fields.finish()?;
    Ok((request, omitted))
}

/// The fields that a message and a request to count its tokens share.
struct Message {
    /// The request without options.
    request: Request,
    /// True if a completion may have several tool calls.
    parallel_tool_calls: bool,
    /// True if the response has the text of the reasoning.
    show_thinking: bool,
    /// The types of the parts that are left out.
    omitted: Omitted,
}

fn message(fields: &mut Fields) -> Result<Message, ApiError> {
    let thinking = thinking(fields)?;
    let model = job::model(fields)?;
    let Input { messages, shown, tools, mut omitted, effort: last_effort } = input(fields)?;
    let mut conversation = messages::parse(messages)?;
    let (schema, effort) = output_config(fields)?;
    let variables = &mut conversation.variables;
    if let Some(enabled) = thinking.enabled {
        variables.insert("enable_thinking".into(), enabled.into());
    }
    if let Some(effort) = last_effort.or(effort) {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    let rules = schema.map(Rules::Schema);
    let schema_fields =
        SchemaFields { text: "output_config.format.schema", ..SchemaFields::default() };
    let request = Request::new(Prompt::Chat(conversation));
    let request = Request { model, rules, schema_fields, ..request };
    let tools = tools::parse(fields, tools, &shown)?;
    omitted.extend(&tools.omitted());
    let (choice, parallel_tool_calls) = tool_choice(fields)?;
    let request = tools.into_request(request, choice.into())?;
    for name in SERVER_TOOLS {
        if fields.take(name).is_some_and(|value| value != json!([])) {
            omitted.add(name);
        }
    }
    Ok(Message { request, parallel_tool_calls, show_thinking: thinking.show, omitted })
}

/// Takes `system` and `messages`.
fn input(fields: &mut Fields) -> Result<Input, ApiError> {
    let mut input = Input::default();
    if let Some(system) = fields.take("system") {
        input.add_system(&system)?;
    }
    let messages = messages::placed(fields.take("messages"))?;
    let last_user = messages.iter().rposition(|(_, message)| message["role"] == "user");
    for (index, (place, message)) in messages.iter().enumerate() {
        // Such a message is shown during the turn of the user that it follows.
        let cleared = message["clear_at"] == "next_user_message" && last_user > Some(index);
        if !cleared {
            input.add(message, place)?;
        }
    }
    match input.messages.last() {
        None => Err(ApiError::invalid("`messages` has no text")),
        Some((_, message)) if message["role"] == "assistant" => {
            Err(ApiError::invalid("`messages`: an answer that is begun is not supported"))
        }
        Some(_) => Ok(input),
    }
}

/// The options of reasoning.
struct Thinking {
    /// True or false if the request turns reasoning on or off.
    enabled: Option<bool>,
    /// True if the response has the text of the reasoning.
    show: bool,
}

/// Takes `thinking`.
fn thinking(fields: &mut Fields) -> Result<Thinking, ApiError> {
    let Some(mut thinking) = fields.object("thinking")? else {
        return Ok(Thinking { enabled: None, show: true });
    };
    let enabled = match thinking.text("type")?.as_deref() {
        Some("enabled" | "adaptive" | "between_tools") => true,
        Some("disabled") => false,
        _ => {
            let expected = "enabled, adaptive, between_tools or disabled";
            return Err(ApiError::invalid_field("thinking.type", expected));
        }
    };
    let expected = "summarized, updates or omitted";
    let show = thinking.read("display", expected, |value| match value.as_str()? {
        "summarized" | "updates" => Some(true),
        "omitted" => Some(false),
        _ => None,
    })?;
    // No chat template takes a budget, so the model ends its reasoning itself.
    thinking.integer("budget_tokens", 1, u64::MAX)?;
    // Thoughts are not signed here, so none is refused for its signature.
    thinking.ignore(&["block_binding"]);
    thinking.finish()?;
    Ok(Thinking { enabled: Some(enabled), show: show.unwrap_or(true) })
}

/// Takes `output_config`: the JSON schema of the answer, and the effort of reasoning.
fn output_config(fields: &mut Fields) -> Result<(Option<Value>, Option<String>), ApiError> {
    // The older field of a schema.
    let older = fields.object("output_format")?;
    let Some(mut config) = fields.object("output_config")? else {
        return Ok((older.map(schema).transpose()?, None));
    };
    let (format, effort) = (config.object("format")?.or(older), config.text("effort")?);
    // The budget of a whole session, by which a client compacts its messages.
    config.ignore(&["task_budget"]);
    config.finish()?;
    Ok((format.map(schema).transpose()?, effort))
}

fn schema(mut format: Fields) -> Result<Value, ApiError> {
    format.only("type", &[json!("json_schema")])?;
    response_format::json_schema(format)
}

/// Takes `tool_choice`, with true if a completion may have several tool calls.
fn tool_choice(fields: &mut Fields) -> Result<(ToolChoice, bool), ApiError> {
    let Some(mut choice) = fields.object("tool_choice")? else {
        return Ok((ToolChoice::Auto, true));
    };
    let parallel_tool_calls = !choice.boolean("disable_parallel_tool_use")?;
    let name = choice.text("name")?;
    let kind = choice.text("type")?;
    choice.finish()?;
    let choice = match (kind.as_deref(), name) {
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("none"), _) => ToolChoice::None,
        (Some("any"), _) => ToolChoice::Required,
        (Some("tool"), Some(name)) => ToolChoice::Function(name),
        _ => {
            let expected = "auto, any, none, or a tool with a name";
            return Err(ApiError::invalid_field("tool_choice", expected));
        }
    };
    Ok((choice, parallel_tool_calls))
}
