//! Schemas that have no value in common, as far as their keywords show it.

use serde_json::Value;

use super::budget::Budget;
use super::kinds::{Kinds, admits, kinds};
use super::refs::resolve;

/// Maximum depth of nested pairs.
const MAX_DEPTH: usize = 32;

/// Formats that no string has two of.
const DISTINCT: [&str; 7] = ["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid"];

/// True if no value can follow both `one` and `other`, parts of `root`. Without budget they count as
/// overlapping.
pub fn are_disjoint(root: &Value, one: &Value, other: &Value, budget: &Budget) -> bool {
    Comparison { root, budget }.disjoint(one, other, 0)
}

struct Comparison<'a> {
    root: &'a Value,
    budget: &'a Budget,
}

impl Comparison<'_> {
    fn disjoint(&self, one: &Value, other: &Value, depth: usize) -> bool {
        if depth > MAX_DEPTH || !self.budget.step() {
            return false;
        }
        let common = kinds(self.root, one).and(kinds(self.root, other));
        common.is_empty()
            || self.one_sided(one, other, depth + 1)
            || self.one_sided(other, one, depth + 1)
            || common == Kinds::OBJECT && self.properties(one, other, depth + 1)
            || common == Kinds::ARRAY && self.items(one, other, depth + 1)
            || common == Kinds::STRING
                && (apart(one, other, "minLength", "maxLength") || have_other_formats(one, other))
            || apart(one, other, "minimum", "maximum") && common.and(Kinds::NUMBER) == common
    }

    /// True if the constants or the parts of `one` show that it is disjoint from `other`.
    fn one_sided(&self, one: &Value, other: &Value, depth: usize) -> bool {
        let constants = one.get("const").map(std::slice::from_ref).or_else(|| list(one, "enum"));
        if constants.is_some_and(|all| !all.iter().any(|v| admits(self.root, other, v))) {
            return true;
        }
        if one["nullable"] == true {
            return false;
        }
        let part = |part: &Value| self.disjoint(part, other, depth);
        let target = one["$ref"].as_str().and_then(|name| resolve(self.root, name));
        let either = |key: &str| list(one, key).is_some_and(|all| all.iter().all(part));
        target.is_some_and(|(_, target)| part(target))
            || list(one, "allOf").is_some_and(|all| all.iter().any(part))
            || either("anyOf")
            || either("oneOf")
    }

    fn properties(&self, one: &Value, other: &Value, depth: usize) -> bool {
        let required = [one, other].into_iter().filter_map(|schema| list(schema, "required"));
        required.flatten().filter_map(Value::as_str).any(|name| {
            match (property(one, name), property(other, name)) {
                (Some(one), Some(other)) => self.disjoint(one, other, depth),
                (one, other) => [one, other].contains(&Some(&Value::Bool(false))),
            }
        })
    }

    fn items(&self, one: &Value, other: &Value, depth: usize) -> bool {
        let least = [one, other].iter().filter_map(|schema| schema["minItems"].as_u64()).max();
        let first = |schema| list(schema, "prefixItems").unwrap_or_default().iter();
        let pairs = first(one).zip(first(other)).take(least.unwrap_or(0) as usize);
        apart(one, other, "minItems", "maxItems")
            || pairs.into_iter().any(|(one, other)| self.disjoint(one, other, depth))
    }
}

/// Schema of a property that the keywords of `schema` itself state.
fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let open =
        || schema.get("additionalProperties").filter(|_| schema["patternProperties"].is_null());
    schema["properties"].get(name).or_else(open)
}

/// True if the strings of two schemas have formats that no string has both of.
fn have_other_formats(one: &Value, other: &Value) -> bool {
    let format = |schema: &Value| {
        let format = schema["format"].as_str()?;
        DISTINCT.iter().position(|known| *known == format)
    };
    format(one).zip(format(other)).is_some_and(|(one, other)| one != other)
}

/// True if the upper bound of one is below the lower bound of the other.
fn apart(one: &Value, other: &Value, least: &str, most: &str) -> bool {
    let below = |low: &Value, high: &Value| {
        low[most].as_f64().zip(high[least].as_f64()).is_some_and(|(most, least)| most < least)
    };
    below(one, other) || below(other, one)
}

fn list<'a>(schema: &'a Value, key: &str) -> Option<&'a [Value]> {
    schema.get(key)?.as_array().map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keywords_show_whether_schemas_overlap() {
        let tagged = |tag: &str| json!({"type": "object", "properties": {"kind": {"const": tag}}, "required": ["kind"]});
        let root =
            json!({"$defs": {"a": tagged("a"), "b": {"$ref": "#/$defs/c"}, "c": tagged("c")}});
        let object = json!({"type": "object"});
        for (one, other, disjoint) in [
            (json!({"$ref": "#/$defs/a"}), json!({"$ref": "#/$defs/b"}), true),
            (json!({"$ref": "#/$defs/a"}), object.clone(), false),
            (json!({"type": "integer"}), json!({"type": "number"}), false),
            (json!({"type": ["string", "null"]}), json!({"type": "number"}), true),
            (json!({"enum": [1, 2]}), json!({"enum": [3, "a"]}), true),
            (
                json!({"type": "integer", "maximum": 2}),
                json!({"type": "integer", "minimum": 3}),
                true,
            ),
            (json!({"maximum": 2}), json!({"minimum": 3}), false),
            (
                json!({"type": "object", "required": ["a"]}),
                json!({"type": "object", "properties": {"b": {}}, "additionalProperties": false}),
                true,
            ),
            (json!({"anyOf": [{"const": 1}, {"const": 2}]}), json!({"const": 3}), true),
            (json!({"type": "string"}), json!({"type": "string"}), false),
        ] {
            assert_eq!(
                are_disjoint(&root, &one, &other, &Budget::new(&Default::default())),
                disjoint,
                "{one} {other}"
            );
            assert_eq!(
                are_disjoint(&root, &other, &one, &Budget::new(&Default::default())),
                disjoint,
                "{other} {one}"
            );
        }
    }
}
