//! Tool calls, in the forms in which models are trained to write them.

use serde_json::{Map, Value, json};

use super::arguments::{from_text, object, typed};
use super::literal;
use crate::tools::name;

/// Tool call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Id of the call, which its result refers to; empty until the call has one.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Arguments by name.
    pub arguments: Map<String, Value>,
}

impl ToolCall {
    /// Arguments as JSON text, the form of OpenAI's messages.
    pub fn arguments_json(&self) -> String {
        Value::from(self.arguments.clone()).to_string()
    }

    /// Tool call in the form of messages and records, whose arguments are an object.
    pub fn record(&self) -> Value {
        let function = json!({"name": self.name, "arguments": self.arguments});
        json!({"id": self.id, "type": "function", "function": function})
    }
}

/// Tool calls of a block between markers; none if the block is malformed. The types of `tools`
/// decide which arguments are strings where the form does not.
pub fn calls(block: &str, tools: &[Value]) -> Option<Vec<ToolCall>> {
    // Some makers put their own name into each tag.
    let plain =
        ["｜DSML｜", "atem:", "longcat_"].iter().fold(block.to_owned(), |b, n| b.replace(n, ""));
    let block = plain.trim();
    let read: &dyn Fn(&str) -> Option<Vec<ToolCall>> = if block.contains("<arg_key>") {
        &|block| glm(block, tools)
    } else if block.contains("<function") || block.contains("<invoke") {
        &|block| tagged(block, tools)
    } else if block.contains("<|tool_call_argument_begin|>") {
        &kimi
    } else if block.contains("<｜tool▁sep｜>") {
        &deepseek
    } else if block.contains("[ARGS]") {
        &mistral
    } else if block.starts_with("call:") {
        &gemma
    } else if block.starts_with(['{', '[']) {
        &|block| json_calls(block).or_else(|| python(block))
    } else if block.ends_with(')') {
        &python
    } else {
        &|block| bare(block, tools)
    };
    read(block).filter(|calls| !calls.is_empty())
}

/// JSON objects `{"name", "arguments"}`, in a list or not; Cohere, Meta and others use other keys.
fn json_calls(block: &str) -> Option<Vec<ToolCall>> {
    let mut calls = Vec::new();
    for value in serde_json::Deserializer::from_str(block).into_iter::<Value>() {
        match value.ok()? {
            Value::Array(all) => {
                for value in &all {
                    calls.push(json_call(value)?);
                }
            }
            value => calls.push(json_call(&value)?),
        }
    }
    Some(calls)
}

fn json_call(value: &Value) -> Option<ToolCall> {
    let value = value.get("function").filter(|inner| inner.is_object()).unwrap_or(value);
    let fields = value.as_object()?;
    let any = |keys: &[&str]| {
        keys.iter().find_map(|key| fields.get(*key).filter(|value| !value.is_null()))
    };
    if let Some(name) = any(&["name", "tool_name", "function"]) {
        let arguments = any(&["arguments", "parameters"]).cloned().unwrap_or_default();
        let id = any(&["id", "tool_call_id"]).and_then(Value::as_str).unwrap_or_default();
        return call(id, name.as_str()?, arguments);
    }
    match fields.iter().next() {
        Some((name, arguments)) if fields.len() == 1 => call("", name, arguments.clone()),
        _ => None,
    }
}

/// Tool call, if its arguments are an object, the JSON text of one, or null.
fn call(id: &str, name: &str, arguments: Value) -> Option<ToolCall> {
    let arguments = object(arguments)?;
    let name = name.trim();
    let plausible = !name.is_empty() && !name.contains(['<', '>', '\n', '{', '"']);
    plausible.then(|| ToolCall { id: id.trim().to_owned(), name: name.to_owned(), arguments })
}

/// XML-like calls: `<function=name><parameter=key>value</parameter></function>`, with `name="..."`,
/// with the tags `invoke` and `param`, or with JSON within a function.
fn tagged(block: &str, tools: &[Value]) -> Option<Vec<ToolCall>> {
    let functions = tags(block, "function").chain(tags(block, "invoke"));
    functions
        .map(|(name, _, body)| {
            if body.trim_start().starts_with('{') {
                return call("", name, Value::String(body.to_owned()));
            }
            let mut arguments = Map::new();
            for (key, text, body) in tags(body, "parameter").chain(tags(body, "param")) {
                let body = body.strip_prefix('\n').unwrap_or(body);
                let body = body.strip_suffix('\n').unwrap_or(body);
                let value = match text {
                    Some(true) => Value::String(body.to_owned()),
                    Some(false) => literal::value(body.trim()).unwrap_or_else(|| body.into()),
                    None => typed(body, name, key, tools),
                };
                arguments.insert(key.to_owned(), value);
            }
            call("", name, Value::Object(arguments))
        })
        .collect()
}

/// Elements `<tag=name>...</tag>` or `<tag name="name">...</tag>` of a block: the name, the
/// attribute `string`, and the content. The last element may lack its end tag.
fn tags<'a>(
    block: &'a str,
    tag: &'a str,
) -> impl Iterator<Item = (&'a str, Option<bool>, &'a str)> {
    let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
    let mut rest = block;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[rest.find(&open)? + open.len()..];
            let (attributes, body) = rest.split_once('>')?;
            let name = match attributes.strip_prefix('=') {
                Some(name) => name.trim().trim_matches(['"', '\'']),
                None if attributes.starts_with(' ') => attribute(attributes, "name")?,
                // A longer tag, such as `<parameter` for `<param`.
                None => continue,
            };
            let (inside, after) = body.split_once(&close).unwrap_or((body, ""));
            rest = after;
            let string = attribute(attributes, "string").map(|value| value == "true");
            return Some((name, string, inside));
        }
    })
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let at = attributes.find(&format!("{name}="))? + name.len() + 1;
    let value = attributes[at..].split_whitespace().next()?;
    Some(value.trim_matches(['"', '\'']))
}

/// GLM's call: `name<arg_key>key</arg_key><arg_value>value</arg_value>`.
fn glm(block: &str, tools: &[Value]) -> Option<Vec<ToolCall>> {
    let (name, mut rest) = block.split_once("<arg_key>")?;
    let name = name.trim();
    let mut arguments = Map::new();
    loop {
        let (key, after) = rest.split_once("</arg_key>")?;
        let (value, after) =
            after.trim_start().strip_prefix("<arg_value>")?.split_once("</arg_value>")?;
        arguments.insert(key.trim().to_owned(), typed(value, name, key.trim(), tools));
        match after.trim_start().strip_prefix("<arg_key>") {
            Some(next) => rest = next,
            None if after.trim().is_empty() => break,
            None => return None,
        }
    }
    Some(vec![call("", name, Value::Object(arguments))?])
}

/// Name of a tool alone, without arguments.
fn bare(block: &str, tools: &[Value]) -> Option<Vec<ToolCall>> {
    tools.iter().find(|tool| name(tool) == Some(block))?;
    Some(vec![call("", block, json!({}))?])
}

/// Kimi's calls: `functions.name:0<|tool_call_argument_begin|>{...}`, each between markers.
fn kimi(block: &str) -> Option<Vec<ToolCall>> {
    let each = block.split("<|tool_call_begin|>").skip(1);
    each.map(|part| {
        let part = part.split("<|tool_call_end|>").next()?;
        let (id, arguments) = part.split_once("<|tool_call_argument_begin|>")?;
        let name = id.trim().rsplit_once(':').map_or(id, |(name, _)| name);
        let name = name.trim().strip_prefix("functions.").unwrap_or(name);
        call(id, name, Value::String(arguments.to_owned()))
    })
    .collect()
}

/// DeepSeek's calls: `name<｜tool▁sep｜>{...}`; earlier models write `function<｜tool▁sep｜>name` and a
/// code block of JSON.
fn deepseek(block: &str) -> Option<Vec<ToolCall>> {
    let each = block.split("<｜tool▁call▁begin｜>").skip(1);
    each.map(|part| {
        let part = part.split("<｜tool▁call▁end｜>").next()?;
        let (first, second) = part.split_once("<｜tool▁sep｜>")?;
        if second.trim_start().starts_with('{') {
            return call("", first, Value::String(second.to_owned()));
        }
        let (name, rest) = second.split_once('\n')?;
        let json = rest.trim().trim_start_matches("```json").trim_matches('`');
        call("", name, Value::String(json.to_owned()))
    })
    .collect()
}

/// Mistral's calls: `name[ARGS]{...}` or `name[CALL_ID]id[ARGS]{...}`, with `[TOOL_CALLS]` between.
fn mistral(block: &str) -> Option<Vec<ToolCall>> {
    let each = block.split("[TOOL_CALLS]").filter(|part| !part.trim().is_empty());
    each.map(|part| {
        let (name, arguments) = part.split_once("[ARGS]")?;
        let (name, id) = name.split_once("[CALL_ID]").unwrap_or((name, ""));
        call(id, name, Value::String(arguments.to_owned()))
    })
    .collect()
}

/// Gemma's calls: `call:name{key:value}`, one after another.
fn gemma(block: &str) -> Option<Vec<ToolCall>> {
    let each = block.split("call:").skip(1);
    each.map(|part| {
        let (name, arguments) = part.split_at(part.find('{').unwrap_or(part.len()));
        call("", name, Value::Object(from_text(arguments)?))
    })
    .collect()
}

/// Python calls: `[name(key=value)]`; Meta's built-in tools are `name.call(key=value)`.
fn python(block: &str) -> Option<Vec<ToolCall>> {
    let all = literal::python_calls(block)?.into_iter();
    all.map(|(name, arguments)| {
        call("", name.strip_suffix(".call").unwrap_or(&name), Value::Object(arguments))
    })
    .collect()
}
