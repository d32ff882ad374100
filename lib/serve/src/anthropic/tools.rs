//! Tools in Anthropic's form.

use serde_json::{Value, json};

use crate::anthropic::blocks::Change;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::openai::tools::Tools;

/// Takes `tools`, of which the model sees those that are not deferred, as `changes` of the
/// conversation leave them.
pub fn parse(fields: &mut Fields, changes: &[Change]) -> Result<Tools, ApiError> {
    let mut given = fields.objects("tools")?;
    for change in changes {
        if let Change::Define { tool, place } = change {
            given.push(fields.element(tool.clone(), place.clone())?);
        }
    }
    let mut kinds = Vec::new();
    for tool in &mut given {
        kinds.push(tool.text("type")?.unwrap_or_else(|| "custom".to_owned()));
    }
    // A tool search that does not run here finds nothing, so all tools are shown from the start.
    let search = kinds.iter().any(|kind| kind.starts_with("tool_search_"));
    let mut tools = Tools::default();
    for (kind, mut tool) in kinds.iter().zip(given) {
        let deferred = tool.boolean("defer_loading")? && !search;
        if kind == "custom" {
            add_function(tool, deferred, changes, &mut tools)?;
        } else {
            tools.leave_out(kind, tool.text("name")?.as_deref());
        }
    }
    Ok(tools)
}

/// Adds a function in the form of chat completions, unless it is hidden.
fn add_function(
    mut tool: Fields,
    deferred: bool,
    changes: &[Change],
    tools: &mut Tools,
) -> Result<(), ApiError> {
    let name = tool.text("name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ApiError::invalid_field(&tool.place("name"), "a text"))?;
    let mut function = json!({"name": name, "parameters": tool.take("input_schema")});
    for field in ["description", "input_examples"] {
        if let Some(value) = tool.take(field) {
            function[field] = value;
        }
    }
    if tool.boolean("strict")? {
        function["strict"] = true.into();
    }
    let callers = tool.read("allowed_callers", "a list", |value| value.as_array().cloned())?;
    tool.finish()?;
    let last = changes.iter().rev().find_map(|change| match change {
        Change::Show(shown) if *shown == name => Some(true),
        Change::Hide(hidden) if *hidden == name => Some(false),
        _ => None,
    });
    if callers.is_some_and(|callers| !callers.contains(&Value::from("direct"))) {
        tools.leave_out(&name, Some(&name));
    } else if last.unwrap_or(!deferred) {
        tools.functions.push(json!({"type": "function", "function": function}));
    }
    Ok(())
}
