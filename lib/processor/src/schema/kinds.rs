//! Kinds of values that a JSON schema allows: its types, and those of its constants.

use std::cell::Cell;

use serde_json::{Map, Value};

use super::refs::resolve;

/// Maximum number of schemas that a question is followed through; further ones allow everything.
const MAX_STEPS: usize = 100;

/// Maximum depth of nested schemas; deeper ones allow everything.
const MAX_DEPTH: usize = 32;

/// Names of types, with the kinds that they stand for.
const TYPES: [(&str, Kinds); 7] = [
    ("null", Kinds::NULL),
    ("boolean", Kinds(2)),
    ("integer", Kinds::INTEGER),
    ("number", Kinds::NUMBER),
    ("string", Kinds::STRING),
    ("array", Kinds::ARRAY),
    ("object", Kinds::OBJECT),
];

/// Set of kinds of values. Whole numbers and other numbers are different kinds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kinds(u8);

impl Kinds {
    /// All kinds.
    pub const ALL: Kinds = Kinds(127);
    /// No kind.
    pub const NONE: Kinds = Kinds(0);
    /// Null.
    pub const NULL: Kinds = Kinds(1);
    /// Whole numbers.
    pub const INTEGER: Kinds = Kinds(4);
    /// Numbers that are not whole.
    pub const FRACTION: Kinds = Kinds(8);
    /// Numbers.
    pub const NUMBER: Kinds = Kinds(4 | 8);
    /// Strings.
    pub const STRING: Kinds = Kinds(16);
    /// Arrays.
    pub const ARRAY: Kinds = Kinds(32);
    /// Objects.
    pub const OBJECT: Kinds = Kinds(64);

    /// Kinds of a `type`: a name or a list of names, in any case; none if a name is unknown.
    pub fn of_type(kind: &Value) -> Option<Kinds> {
        let one = |name: &Value| {
            let name = name.as_str()?.to_ascii_lowercase();
            TYPES.iter().find(|(known, _)| *known == name).map(|(_, kinds)| *kinds)
        };
        match kind {
            Value::Array(names) => {
                names.iter().map(one).try_fold(Kinds::NONE, |all, kinds| Some(all.or(kinds?)))
            }
            name => one(name),
        }
    }

    /// Kind of a value.
    pub fn of_value(value: &Value) -> Kinds {
        match value {
            Value::Null => Kinds::NULL,
            Value::Bool(_) => Kinds(2),
            Value::Number(number) if number.as_f64().is_none_or(|n| n.fract() == 0.0) => {
                Kinds::INTEGER
            }
            Value::Number(_) => Kinds::FRACTION,
            Value::String(_) => Kinds::STRING,
            Value::Array(_) => Kinds::ARRAY,
            Value::Object(_) => Kinds::OBJECT,
        }
    }

    /// Kinds in this set or in another.
    pub fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Kinds in this set and in another.
    pub fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    /// Kinds that are not in this set.
    pub fn others(self) -> Kinds {
        Kinds(Kinds::ALL.0 & !self.0)
    }

    /// True if the set has all of `others`.
    pub fn has(self, others: Kinds) -> bool {
        self.and(others) == others
    }

    /// True if there is no kind.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Names of the types that the set consists of. Numbers without the whole ones have no name.
    pub fn names(self) -> Vec<&'static str> {
        let number = self.has(Kinds::NUMBER);
        let named = TYPES
            .iter()
            .filter(|(name, kinds)| self.has(*kinds) && !(number && *name == "integer"));
        named.map(|(name, _)| *name).collect()
    }
}

/// Kinds of values that `schema`, a part of `root`, may allow.
pub fn kinds(root: &Value, schema: &Value) -> Kinds {
    Search { root, steps: Cell::new(0) }.kinds(schema, 0)
}

/// True if `value` has a type that `schema`, a part of `root`, allows, and is one of its constants
/// where it has any. Other keywords are not looked at.
pub fn admits(root: &Value, schema: &Value, value: &Value) -> bool {
    Search { root, steps: Cell::new(0) }.admits(schema, value, 0)
}

struct Search<'a> {
    root: &'a Value,
    steps: Cell<usize>,
}

impl Search<'_> {
    /// Fields of a schema that is an object, as long as the search may go on.
    fn fields<'v>(&self, schema: &'v Value, depth: usize) -> Option<&'v Map<String, Value>> {
        self.steps.set(self.steps.get() + 1);
        schema.as_object().filter(|_| depth < MAX_DEPTH && self.steps.get() < MAX_STEPS)
    }

    fn target(&self, reference: &Value) -> Option<&Value> {
        Some(resolve(self.root, reference.as_str()?)?.1)
    }

    fn kinds(&self, schema: &Value, depth: usize) -> Kinds {
        if *schema == false {
            return Kinds::NONE;
        }
        let Some(fields) = self.fields(schema, depth) else { return Kinds::ALL };
        let part = |part: &Value| self.kinds(part, depth + 1);
        let mut all = Kinds::ALL;
        for (keyword, value) in fields {
            let either =
                |each: &dyn Fn(&Value) -> Kinds| list(value).map(each).fold(Kinds::NONE, Kinds::or);
            all = all.and(match keyword.as_str() {
                "type" => Kinds::of_type(value).unwrap_or(Kinds::ALL),
                "const" => Kinds::of_value(value),
                "enum" => either(&Kinds::of_value),
                "anyOf" | "oneOf" => either(&part),
                "allOf" => list(value).map(part).fold(Kinds::ALL, Kinds::and),
                "$ref" => self.target(value).map_or(Kinds::ALL, part),
                _ => Kinds::ALL,
            });
        }
        if is_nullable(fields) { all.or(Kinds::NULL) } else { all }
    }

    fn admits(&self, schema: &Value, value: &Value, depth: usize) -> bool {
        let Some(fields) = self.fields(schema, depth) else { return *schema != false };
        if value.is_null() && is_nullable(fields) {
            return true;
        }
        let part = |schema: &Value| self.admits(schema, value, depth + 1);
        let kind = Kinds::of_value(value);
        fields.iter().all(|(keyword, given)| match keyword.as_str() {
            "type" => Kinds::of_type(given).is_none_or(|kinds| !kinds.and(kind).is_empty()),
            "const" => same(given, value),
            "enum" => list(given).any(|one| same(one, value)),
            "anyOf" | "oneOf" => list(given).any(part),
            "allOf" => list(given).all(part),
            "$ref" => self.target(given).is_none_or(part),
            _ => true,
        })
    }
}

/// True if null is allowed beside what the other keywords allow, as OpenAPI 3.0 says it.
pub fn is_nullable(fields: &Map<String, Value>) -> bool {
    fields.get("nullable") == Some(&Value::Bool(true))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// True if two values are equal; numbers are equal if they have the same value.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let found = |(name, value): (&String, &Value)| {
                b.get(name).is_some_and(|other| same(value, other))
            };
            a.len() == b.len() && a.iter().all(found)
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_in_all_their_forms_are_kinds() {
        let root = json!({"$defs": {"s": {"type": "string"}}});
        for (schema, names) in [
            (json!({"type": "STRING", "nullable": true}), vec!["null", "string"]),
            (
                json!({"anyOf": [{"$ref": "#/$defs/s"}, {"type": "integer"}]}),
                vec!["integer", "string"],
            ),
            (json!({"enum": [1, "a", 1.5]}), vec!["number", "string"]),
            (
                json!({"allOf": [{"type": ["integer", "null"]}, {"type": "number"}]}),
                vec!["integer"],
            ),
            (json!(false), vec![]),
        ] {
            assert_eq!(kinds(&root, &schema).names(), names, "{schema}");
        }
        assert_eq!(kinds(&root, &json!({})), Kinds::ALL);
        let endless = json!({"$ref": "#"});
        assert_eq!(kinds(&endless, &endless), Kinds::ALL);
    }
}
