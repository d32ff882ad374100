//! Structured output: the JSON schema that a completion has to follow, as all APIs request it.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;

/// The JSON schema of a response format, the object in `field`; none for plain text.
pub fn parse(mut format: Fields, field: &str) -> Result<Option<Value>, ApiError> {
    let schema = match format.text("type")?.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(json!({"type": "object"})),
        // Chat completions nest the schema in an object, responses put it beside the type.
        Some("json_schema") => match format.object("json_schema")? {
            Some(nested) => Some(json_schema(nested, field)?),
            None => return json_schema(format, field).map(Some),
        },
        _ => {
            let expected = "of the type text, json_object or json_schema";
            return Err(ApiError::invalid_field(field, expected));
        }
    };
    format.finish(&format!("`{field}`"))?;
    Ok(schema)
}

/// The `schema` of an object in `field`. Its name and description are ignored, as no chat template
/// takes them, and so is `strict`, as every schema is enforced.
pub fn json_schema(mut format: Fields, field: &str) -> Result<Value, ApiError> {
    format.ignore(&["name", "description", "strict"]);
    let schema = format.take("schema");
    format.finish(&format!("`{field}`"))?;
    schema.ok_or_else(|| ApiError::invalid(format!("`{field}`: no `schema`")))
}
