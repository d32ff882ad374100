//! Result of lowering a JSON schema.

use std::fmt;

use serde_json::{Map, Value, json};

/// Lowered schema.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Schema, whose references lead into `definitions`.
    pub schema: Value,
    /// Schemas by the names that follow `#/$defs/` in references.
    pub definitions: Map<String, Value>,
    /// Keywords that were left out.
    pub unheld: Vec<Unheld>,
}

/// Keyword that a grammar does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Unheld {
    /// Keyword.
    pub keyword: String,
    /// JSON pointer to the keyword in the schema.
    pub pointer: String,
    /// Reason, if there is more to say.
    pub reason: Option<String>,
}

impl fmt::Display for Unheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unheld { keyword, pointer, reason } = self;
        write!(f, "`{keyword}` at #{pointer} cannot be enforced")?;
        reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

impl Lowered {
    /// Schema of any object, which nothing else constrains.
    pub fn any_object() -> Lowered {
        let schema = json!({"type": "object"});
        Lowered { schema, definitions: Map::new(), unheld: Vec::new() }
    }

    /// Schema with its definitions.
    pub fn document(self) -> Value {
        match self.definitions.is_empty() {
            true => self.schema,
            false => json!({"allOf": [self.schema], "$defs": self.definitions}),
        }
    }
}
