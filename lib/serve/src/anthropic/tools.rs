//! Tools in Anthropic's form.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::openai::messages::Placed;
use crate::openai::tools::Tools;

/// Takes `tools`, to which the messages add those of `defined`. The model sees the ones that are not
/// deferred, unless `shown` says otherwise.
pub fn parse(
    fields: &mut Fields,
    defined: Vec<Placed>,
    shown: &BTreeMap<String, bool>,
) -> Result<Tools, ApiError> {
    let mut given = fields.objects("tools")?;
    for (place, tool) in defined {
        given.push(fields.element(tool, place)?);
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
            add_function(tool, deferred, shown, &mut tools)?;
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
    shown: &BTreeMap<String, bool>,
    tools: &mut Tools,
) -> Result<(), ApiError> {
    let name = tool.text("name")?.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ApiError::invalid_field(&tool.place("name"), "a text"))?;
    let schema = tool.place("input_schema");
    let mut function = Map::new();
    function.insert("name".into(), name.as_str().into());
    function.insert("parameters".into(), tool.take("input_schema").into());
    for field in ["description", "input_examples"] {
        if let Some(value) = tool.take(field) {
            function.insert(field.into(), value);
        }
    }
    if tool.boolean("strict")? {
        function.insert("strict".into(), true.into());
    }
    let callers = tool.read("allowed_callers", "a list", |value| value.as_array().cloned())?;
    tool.finish()?;
    if callers.is_some_and(|callers| !callers.contains(&Value::from("direct"))) {
        tools.leave_out(&name, Some(&name));
    } else if shown.get(&name).copied().unwrap_or(!deferred) {
        tools.add_function(function, schema);
    }
    Ok(())
}
