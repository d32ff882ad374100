//! Complement of a JSON schema: a schema of the values that it does not allow.

use serde_json::{Map, Value, json};

use super::budget::Budget;
use super::kinds::{Kinds, is_nullable};
use super::pattern;
use super::refs::resolve;

/// Keywords whose complement no keyword expresses.
const UNKNOWN: [&str; 17] = [
    "multipleOf",
    "uniqueItems",
    "prefixItems",
    "additionalItems",
    "minContains",
    "maxContains",
    "propertyNames",
    "patternProperties",
    "dependentRequired",
    "dependentSchemas",
    "dependencies",
    "unevaluatedItems",
    "unevaluatedProperties",
    "if",
    "oneOf",
    "$dynamicRef",
    "$recursiveRef",
];

/// Schema of values that `schema`, a part of `root`, does not allow; none if no keywords express it.
/// It has all such values of the kinds `within`, except numbers that are not whole where other kinds
/// are left. Formats count as annotations.
pub fn negate(root: &Value, schema: &Value, within: Kinds, budget: &Budget) -> Option<Value> {
    let fields = match schema {
        Value::Bool(all) => return Some(Value::Bool(!all)),
        schema => schema.as_object()?,
    };
    let mut either = Vec::new();
    for (keyword, value) in fields {
        either.extend(without(root, fields, (keyword, value), within, budget)?);
    }
    let any = match either.len() {
        0 => Value::Bool(false),
        1 => either.remove(0),
        _ => json!({"anyOf": either}),
    };
    match is_nullable(fields) {
        true => Some(json!({"allOf": [any, {"type": Kinds::NULL.others().names()}]})),
        false => Some(any),
    }
}

/// Schemas of the values that do not follow one keyword of `fields`.
fn without(
    root: &Value,
    fields: &Map<String, Value>,
    (keyword, value): (&str, &Value),
    within: Kinds,
    budget: &Budget,
) -> Option<Vec<Value>> {
    let count = || value.as_f64().filter(|count| count.fract() == 0.0 && *count >= 0.0);
    let fewer = |kind: &str, keyword: &str| {
        let count = count()? as u64;
        Some(count.checked_sub(1).map(|most| json!({"type": kind, keyword: most})))
    };
    let more = |kind: &str, keyword: &str| {
        Some(Some(json!({"type": kind, keyword: (count()? as u64).checked_add(1)?})))
    };
    let number =
        |keyword: &str| value.is_number().then(|| Some(json!({"type": "number", keyword: value})));
    let listed = || value.as_array().map(Vec::as_slice);
    let one = match keyword {
        "type" => {
            let mut others = Kinds::of_type(value)?.others();
            // Numbers that are not whole have no type of their own.
            if others.and(Kinds::NUMBER) == Kinds::FRACTION {
                others = others.and(Kinds::NUMBER.others());
                if within.and(others).is_empty() && within.has(Kinds::FRACTION) {
                    return None;
                }
            }
            (!others.is_empty()).then(|| json!({"type": others.names()}))
        }
        "const" => return others(std::slice::from_ref(value), budget),
        "enum" => return others(listed()?, budget),
        "minimum" => number("exclusiveMaximum")?,
        "maximum" => number("exclusiveMinimum")?,
        "exclusiveMinimum" => number("maximum")?,
        "exclusiveMaximum" => number("minimum")?,
        "minLength" => fewer("string", "maxLength")?,
        "maxLength" => more("string", "minLength")?,
        "minItems" => fewer("array", "maxItems")?,
        "maxItems" => more("array", "minItems")?,
        "minProperties" => fewer("object", "maxProperties")?,
        "maxProperties" => more("object", "minProperties")?,
        "pattern" => {
            let pattern = pattern::complement(value.as_str()?, budget).ok()?;
            Some(json!({"type": "string", "pattern": pattern}))
        }
        "items" if value.is_array() => return None,
        "items" => Some(json!({"type": "array", "contains": {"not": value}})),
        "contains" => Some(json!({"type": "array", "items": {"not": value}})),
        "required" => {
            let missing = |name: &str| json!({"type": "object", "properties": {name: false}});
            let names = listed()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            return Some(names.into_iter().map(missing).collect());
        }
        "properties" => {
            let wrong = |(name, schema): (&String, &Value)| {
                let property = json!({"not": schema});
                json!({"type": "object", "properties": {name: property}, "required": [name]})
            };
            return Some(value.as_object()?.iter().map(wrong).collect());
        }
        "additionalProperties" if *value == true || *value == json!({}) => None,
        "additionalProperties" => return None,
        "allOf" => return Some(listed()?.iter().map(|part| json!({"not": part})).collect()),
        "anyOf" => {
            let none: Vec<Value> = listed()?.iter().map(|part| json!({"not": part})).collect();
            Some(json!({"allOf": none}))
        }
        "not" => Some(value.clone()),
        "$ref" => {
            resolve(root, value.as_str()?)?;
            Some(json!({"not": {"$ref": value}}))
        }
        keyword if UNKNOWN.contains(&keyword) && !is_nothing(fields, keyword) => return None,
        _ => None,
    };
    Some(one.into_iter().collect())
}

/// True if a keyword of `fields` has its default, which constrains nothing.
fn is_nothing(fields: &Map<String, Value>, keyword: &str) -> bool {
    keyword == "uniqueItems" && fields[keyword] == false
}

/// Schemas of all values but `values`.
fn others(values: &[Value], budget: &Budget) -> Option<Vec<Value>> {
    let kinds = values.iter().map(Kinds::of_value).fold(Kinds::NONE, Kinds::or);
    if !kinds.and(Kinds::ARRAY.or(Kinds::OBJECT)).is_empty() {
        return None;
    }
    let kinds = if kinds.and(Kinds::NUMBER).is_empty() { kinds } else { kinds.or(Kinds::NUMBER) };
    let mut either = Vec::new();
    let untouched = kinds.others().names();
    either.extend((!untouched.is_empty()).then(|| json!({"type": untouched})));
    let strings: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    if !strings.is_empty() {
        let pattern = pattern::excluding(&strings, budget).ok()?;
        either.push(json!({"type": "string", "pattern": pattern}));
    }
    let booleans: Vec<bool> = values.iter().filter_map(Value::as_bool).collect();
    either.extend(
        [true, false]
            .iter()
            .filter(|value| !booleans.is_empty() && !booleans.contains(value))
            .map(|value| json!({"const": value})),
    );
    let mut numbers: Vec<&Value> = values.iter().filter(|value| value.is_number()).collect();
    numbers
        .sort_by(|a, b| a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(std::cmp::Ordering::Equal));
    if let [first, .., last] | [first @ last] = numbers[..] {
        either.push(json!({"type": "number", "exclusiveMaximum": first}));
        either.push(json!({"type": "number", "exclusiveMinimum": last}));
    }
    either.extend(numbers.windows(2).filter(|pair| pair[0].as_f64() < pair[1].as_f64()).map(
        |pair| json!({"type": "number", "exclusiveMinimum": pair[0], "exclusiveMaximum": pair[1]}),
    ));
    Some(either)
}
