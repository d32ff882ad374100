//! The schema that an answer has to follow, as all APIs ask for one.

use serde_json::{Value, json};

use crate::error::Refusal;
use crate::fields::Fields;

/// The schema of a format, which is in the field `of` a body; none if the answer is plain text.
pub fn read(mut format: Fields, of: &str) -> Result<Option<Value>, Refusal> {
    let schema = match format.text("type")?.as_deref() {
        Some("text") => None,
        Some("json_object") => Some(json!({"type": "object"})),
        // Chats have it in an object of its own, responses beside the type.
        Some("json_schema") => match format.object("json_schema")? {
            Some(inner) => Some(named(inner, of)?),
            None => return named(format, of).map(Some),
        },
        _ => return Err(Refusal::wrong(of, "of the type text, json_object or json_schema")),
    };
    format.finish(&format!("`{of}`"))?;
    Ok(schema)
}

/// A schema with a name and a description, which no template has a place for; all are strict.
pub fn named(mut fields: Fields, of: &str) -> Result<Value, Refusal> {
    fields.skip(&["name", "description", "strict"]);
    let schema = fields.take("schema");
    fields.finish(&format!("`{of}`"))?;
    schema.ok_or_else(|| Refusal::invalid(format!("`{of}`: no `schema`")))
}
