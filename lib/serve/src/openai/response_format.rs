//! Structured output: the JSON schema that a completion has to follow, as all APIs request it.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;

/// The JSON schema of a response format; none for plain text.
pub fn parse(mut format: Fields) -> Result<Option<Value>, ApiError> {
    let schema = match format.text("type")?.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(json!({"type": "object"})),
        // Chat completions nest the schema in an object, responses put it beside the type.
        Some("json_schema") => match format.object("json_schema")? {
            Some(nested) => Some(json_schema(nested)?),
            None => return json_schema(format).map(Some),
        },
        _ => {
            let expected = "text, json_object or json_schema";
            return Err(ApiError::invalid_field(&format.place("type"), expected));
        }
    };
    format.finish()?;
    Ok(schema)
}

/// The `schema` of an object. Its name and description are ignored, as no chat template takes them,
/// and so is `strict`, as every schema is enforced.
pub fn json_schema(mut format: Fields) -> Result<Value, ApiError> {
    format.ignore(&["name", "description", "strict"]);
    let schema = format.take("schema");
    let place = format.place("schema");
    format.finish()?;
    schema.ok_or_else(|| ApiError::invalid(format!("`{place}` is missing")))
}
