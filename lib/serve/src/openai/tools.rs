//! Tools that a model may call, and the choice among them, in OpenAI's form.

use std::collections::{BTreeMap, BTreeSet};

use mlxk_processor::request::ToolChoice;
use mlxk_processor::{Request, ToolCall};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::omitted::Omitted;
use crate::openai::calls::{Origin, Origins, custom_function, custom_input, full_name};

/// Fields of a tool that say when and by whom it is called, which the model does not need to know.
const UNSEEN: [&str; 3] = ["allowed_callers", "cache_control", "defer_loading"];

/// The tools of a body.
#[derive(Default)]
pub struct Tools {
    /// The functions that the model sees, in the form of chat completions.
    pub functions: Vec<Value>,
    /// Those of the functions that clients know as something else.
    pub origins: Origins,
    /// The fields of the body with the schemas of the functions, by their names.
    fields: BTreeMap<String, String>,
    /// The type and, if it has one, the name of each tool that is left out: only another server
    /// runs it, or has the model trained for it.
    left_out: Vec<(String, Option<String>)>,
}

impl Tools {
    /// Takes `tools`.
    pub fn parse(fields: &mut Fields) -> Result<Tools, ApiError> {
        let mut tools = Tools::default();
        let given = fields.read("tools", "a list of tools", |value| value.as_array().cloned())?;
        for (index, tool) in given.unwrap_or_default().iter().enumerate() {
            tools.add(tool, &format!("tools[{index}]"))?;
        }
        Ok(tools)
    }

    /// Adds the tool at `place` of the body.
    pub fn add(&mut self, tool: &Value, place: &str) -> Result<(), ApiError> {
        match tool["type"].as_str() {
            Some("namespace") => self.add_namespace(tool, place),
            _ => self.add_member(tool, place, None, None),
        }
    }

    /// Adds a function in the form of chat completions, the schema of whose arguments is in the
    /// `field` of the body.
    pub fn add_function(&mut self, function: Map<String, Value>, field: String) {
        if let Some(name) = function.get("name").and_then(Value::as_str) {
            // Of several functions of a name, errors are about the first.
            self.fields.entry(name.to_owned()).or_insert(field);
        }
        self.functions.push(json!({"type": "function", "function": function}));
    }

    /// Adds a tool that is left out, with its type and name.
    pub fn leave_out(&mut self, kind: &str, name: Option<&str>) {
        self.left_out.push((kind.to_owned(), name.map(str::to_owned)));
    }

    /// The types of the tools that are left out.
    pub fn omitted(&self) -> Omitted {
        let mut omitted = Omitted::default();
        self.left_out.iter().for_each(|(kind, _)| omitted.add(kind));
        omitted
    }

    /// The request with these tools and the choice among them.
    ///
    /// # Errors
    /// If a chosen tool is missing or left out.
    pub fn into_request(self, mut request: Request, chosen: Choice) -> Result<Request, ApiError> {
        let Tools { mut functions, left_out, fields, .. } = self;
        request.schema_fields.tools = fields;
        let Choice { choice, allowed } = chosen;
        let out = left_out.iter().flat_map(|(kind, name)| [Some(&**kind), name.as_deref()]);
        let out: BTreeSet<&str> = out.flatten().collect();
        if let Some(names) = allowed {
            let all: BTreeSet<&str> = functions.iter().filter_map(function_name).collect();
            let known = |name: &String| all.contains(&**name) || out.contains(&**name);
            if names.is_empty() || !names.iter().all(known) {
                return Err(ApiError::invalid("`tool_choice` is none of `tools`"));
            }
            let is_allowed = |tool: &Value| function_name(tool).is_some_and(|n| names.contains(n));
            functions.retain(is_allowed);
        }
        let has = |name: &str| functions.iter().any(|tool| function_name(tool) == Some(name));
        let demanded = match &choice {
            ToolChoice::Function(name) if !has(name) => out.contains(&**name).then(|| name.clone()),
            ToolChoice::Required if functions.is_empty() => {
                left_out.first().map(|(kind, name)| name.as_ref().unwrap_or(kind).clone())
            }
            _ => None,
        };
        match demanded {
            Some(name) => Err(cannot_run("tool_choice", &name)),
            None => Ok(request.with_tools(functions, &choice)?),
        }
    }

    /// Adds the members of a namespace. The first one tells what the namespace is for.
    fn add_namespace(&mut self, tool: &Value, place: &str) -> Result<(), ApiError> {
        let namespace = text(tool, "name", place)?;
        let members = tool["tools"].as_array();
        let members =
            members.ok_or_else(|| ApiError::invalid_field(&format!("{place}.tools"), "a list"))?;
        for (index, member) in members.iter().enumerate() {
            let about = tool["description"].as_str().filter(|_| index == 0);
            self.add_member(member, &format!("{place}.tools[{index}]"), Some(namespace), about)?;
        }
        Ok(())
    }

    /// Adds a function or a custom tool; leaves out any other one. `about` precedes its description.
    fn add_member(
        &mut self,
        tool: &Value,
        place: &str,
        namespace: Option<&str>,
        about: Option<&str>,
    ) -> Result<(), ApiError> {
        let kind = text(tool, "type", place)?;
        if !["function", "custom"].contains(&kind) {
            self.leave_out(kind, tool["name"].as_str());
            return Ok(());
        }
        // Chat completions nest a tool in an object with the name of its type, responses do not.
        let (body, place) = match tool.get(kind) {
            Some(nested) => (nested, format!("{place}.{kind}")),
            None => (tool, place.to_owned()),
        };
        let name = text(body, "name", &place)?;
        if !is_direct(body) {
            self.leave_out(name, Some(name));
            return Ok(());
        }
        let body = body.as_object().cloned().unwrap_or_default();
        let custom = kind == "custom";
        let mut function = if custom { custom_function(&body) } else { without_type(body) };
        let full = full_name(namespace, name);
        if custom || namespace.is_some() {
            let (namespace, name) = (namespace.map(str::to_owned), name.to_owned());
            self.origins.insert(full.clone(), Origin { namespace, name, custom });
        }
        function.insert("name".into(), full.into());
        if let Some(about) = about {
            let own = function.get("description").and_then(Value::as_str).unwrap_or_default();
            let description = format!("{about}\n\n{own}").trim_end().to_owned();
            function.insert("description".into(), description.into());
        }
        self.add_function(function, format!("{place}.parameters"));
        Ok(())
    }
}

/// A `tool_choice`, which may narrow the tools before the choice among them.
#[derive(Default)]
pub struct Choice {
    /// The choice among the tools.
    pub choice: ToolChoice,
    /// The names of the tools that are left, if others are dropped; the type of a tool that has no
    /// name.
    pub allowed: Option<BTreeSet<String>>,
}

impl Choice {
    /// Takes `tool_choice` of chat completions, which nest a function in an object, or of
    /// responses, which do not.
    pub fn parse(fields: &mut Fields) -> Result<Choice, ApiError> {
        let Some(value) = fields.take("tool_choice") else { return Ok(Choice::default()) };
        let expected = "auto, none, required, a function or allowed_tools";
        let invalid = || ApiError::invalid_field("tool_choice", expected);
        match value["type"].as_str() {
            Some("function" | "custom") => {
                let name = name(&value).ok_or_else(invalid)?;
                Ok(Choice::from(ToolChoice::Function(name)))
            }
            Some("allowed_tools") => {
                Choice::allowed(value.get("allowed_tools").unwrap_or(&value)).ok_or_else(invalid)
            }
            Some(kind) => Err(cannot_run("tool_choice.type", kind)),
            None => ToolChoice::read(&value).map(Choice::from).ok_or_else(invalid),
        }
    }

    fn allowed(value: &Value) -> Option<Choice> {
        let choice = match value["mode"].as_str()? {
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => return None,
        };
        let tool = |tool: &Value| match tool["type"].as_str()? {
            "function" | "custom" => name(tool),
            kind => Some(kind.to_owned()),
        };
        let allowed = value["tools"].as_array()?.iter().map(tool).collect::<Option<_>>();
        Some(Choice { choice, allowed: Some(allowed?) })
    }
}

impl From<ToolChoice> for Choice {
    fn from(choice: ToolChoice) -> Choice {
        Choice { choice, allowed: None }
    }
}

/// Takes `parallel_tool_calls`: true, also if it is absent, if a completion may have several tool
/// calls.
pub fn parallel_tool_calls(fields: &mut Fields) -> Result<bool, ApiError> {
    let parallel = fields.read("parallel_tool_calls", "true or false", Value::as_bool)?;
    Ok(parallel.unwrap_or(true))
}

/// A tool call of a chat completion.
pub fn tool_call(call: &ToolCall, origins: &Origins) -> Value {
    match origins.get(&call.name) {
        Some(origin) if origin.custom => json!({
            "id": call.id,
            "type": "custom",
            "custom": {"name": origin.name, "input": custom_input(call)},
        }),
        _ => json!({
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments_json()},
        }),
    }
}

/// The name of a tool in the form of chat completions.
pub fn function_name(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str()
}

/// True if the model itself may call a tool, and not only a program.
fn is_direct(tool: &Value) -> bool {
    let callers = tool["allowed_callers"].as_array();
    callers.is_none_or(|callers| callers.iter().any(|caller| caller == "direct"))
}

fn without_type(mut function: Map<String, Value>) -> Map<String, Value> {
    function.retain(|name, _| name != "type" && !UNSEEN.contains(&name.as_str()));
    function
}

/// The text in the field `name` of the object at `place`.
fn text<'a>(object: &'a Value, name: &str, place: &str) -> Result<&'a str, ApiError> {
    if !object.is_object() {
        return Err(ApiError::invalid_field(place, "an object"));
    }
    let text = object[name].as_str().filter(|text| !text.is_empty());
    text.ok_or_else(|| ApiError::invalid_field(&format!("{place}.{name}"), "a text"))
}

/// The name under which the model sees a chosen tool, which may be nested in an object.
fn name(value: &Value) -> Option<String> {
    let kind = value["type"].as_str().unwrap_or("function");
    let tool = value.get(kind).unwrap_or(value);
    Some(full_name(tool["namespace"].as_str(), tool["name"].as_str()?))
}

fn cannot_run(place: &str, tool: &str) -> ApiError {
    ApiError::invalid(format!("`{place}`: the tool `{tool}` is left out, as it cannot run here"))
}
