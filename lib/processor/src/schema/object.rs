//! Keywords of objects that depend on other properties or on their number, by schemas that do not.

use serde_json::{Map, Value, json};

use super::budget::Budget;
use super::pattern;
use super::refs::{follow, resolve};

/// Maximum number of alternatives that stand for one keyword.
const MAX_EITHER: usize = 128;

/// Maximum number of schemas that share the properties of one object.
const MAX_PARTS: usize = 64;

/// Schema of objects whose names follow `propertyNames`; none if no keywords express it.
pub fn named(root: &Value, fields: &Map<String, Value>, budget: &Budget) -> Option<Value> {
    let rule = fields.get("propertyNames")?;
    let rule = match follow(root, rule) {
        Value::Bool(true) => return Some(Value::Bool(true)),
        Value::Bool(false) => return Some(json!({"additionalProperties": false})),
        rule => rule.as_object()?,
    };
    if let Some(names) = names(root, fields) {
        let properties: Map<String, Value> =
            names.into_iter().map(|name| (name.to_owned(), Value::Bool(true))).collect();
        return Some(json!({"properties": properties, "additionalProperties": false}));
    }
    let mut patterns = Vec::new();
    for (keyword, value) in rule {
        match keyword.as_str() {
            "type" if *value == "string" => {}
            "pattern" => patterns.extend(pattern::plain(value.as_str()?, budget).ok()?),
            "minLength" => patterns.push(format!("^(?s:.{{{},}})$", value.as_u64()?)),
            "maxLength" => patterns.push(format!("^(?s:.{{0,{}}})$", value.as_u64()?)),
            "enum" | "const" | "not" | "anyOf" | "oneOf" | "allOf" | "if" | "$ref" | "type" => {
                return None;
            }
            _ => {}
        }
    }
    let each = |pattern: String| json!({"patternProperties": {pattern: true}, "additionalProperties": false});
    match patterns.len() {
        0 => Some(Value::Bool(true)),
        1 if !fields.contains_key("patternProperties") => patterns.pop().map(each),
        _ => None,
    }
}

/// Names that `propertyNames` lists, if it lists them.
fn names<'a>(root: &'a Value, fields: &'a Map<String, Value>) -> Option<Vec<&'a str>> {
    let rule = follow(root, fields.get("propertyNames")?).as_object()?;
    let listed = match (rule.get("const"), rule.get("enum")) {
        (Some(name), _) => std::slice::from_ref(name),
        (None, names) => names?.as_array()?,
    };
    Some(listed.iter().filter_map(Value::as_str).collect())
}

/// Schemas that stand for `dependentRequired`, `dependentSchemas` and `dependencies`, each with its
/// keyword.
pub fn dependent(fields: &Map<String, Value>) -> Vec<(&'static str, Value)> {
    let keywords = ["dependentRequired", "dependentSchemas", "dependencies"];
    let all = keywords.into_iter().flat_map(|keyword| {
        let entries = fields.get(keyword).and_then(Value::as_object).into_iter().flatten();
        entries.map(move |(name, needs)| (keyword, name, needs))
    });
    all.map(|(keyword, name, needs)| {
        let present = match needs {
            Value::Array(names) => {
                let all: Vec<Value> =
                    [json!(name)].into_iter().chain(names.iter().cloned()).collect();
                json!({"required": all})
            }
            schema => json!({"allOf": [{"required": [name]}, schema]}),
        };
        (keyword, json!({"anyOf": [{"properties": {name: false}}, present]}))
    })
    .collect()
}

/// Schemas that stand for `minProperties` and `maxProperties` where properties are optional, each
/// with its keyword; none in the place of one that is too large.
pub fn counted(root: &Value, fields: &Map<String, Value>) -> Vec<(&'static str, Option<Value>)> {
    let required: Vec<&str> = texts(fields.get("required")).collect();
    let properties = fields.get("properties").and_then(Value::as_object).into_iter().flatten();
    let stated = properties.filter(|(_, schema)| **schema != false).map(|(name, _)| name.as_str());
    let mut optional: Vec<&str> = stated.chain(names(root, fields).unwrap_or_default()).collect();
    optional.retain(|name| !required.contains(name));
    optional.sort_unstable();
    optional.dedup();
    if optional.is_empty() {
        return Vec::new();
    }
    let count = |keyword: &str| {
        let count = fields.get(keyword)?.as_u64()?;
        Some(usize::try_from(count).unwrap_or(usize::MAX).saturating_sub(required.len()))
    };
    let mut all = Vec::new();
    if let Some(least) = count("minProperties") {
        // Properties without a name of their own come on top of the optional ones.
        let mut rest = json!({"type": "object"});
        if least > optional.len() {
            rest["minProperties"] = (least + required.len()).into();
        }
        let either = choices(&optional, least.min(optional.len())).map(|choices| {
            let with = |names: Vec<&str>| {
                let mut schema = rest.clone();
                schema["required"] = json!(names);
                schema
            };
            json!({"anyOf": choices.into_iter().map(with).collect::<Vec<_>>()})
        });
        all.push(("minProperties", either));
    }
    if let Some(most) = count("maxProperties") {
        let open = fields.contains_key("patternProperties");
        let either =
            choices(&optional, most.min(optional.len())).filter(|_| !open).map(|choices| {
                let with = |names: Vec<&str>| {
                    let names = required.iter().chain(&names);
                    let allowed: Map<String, Value> =
                        names.map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
                    json!({"type": "object", "properties": allowed, "additionalProperties": false})
                };
                json!({"anyOf": choices.into_iter().map(with).collect::<Vec<_>>()})
            });
        all.push(("maxProperties", either));
    }
    all
}

/// All choices of `count` of `names`; none if they are too many.
fn choices<'a>(names: &[&'a str], count: usize) -> Option<Vec<Vec<&'a str>>> {
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    for (place, name) in names.iter().enumerate() {
        let left = names.len() - place - 1;
        let with: Vec<Vec<&str>> = all
            .iter()
            .filter(|chosen| chosen.len() < count)
            .map(|chosen| [&chosen[..], &[*name]].concat())
            .collect();
        all.retain(|chosen| chosen.len() + left >= count);
        all.extend(with);
        if all.len() > MAX_EITHER {
            return None;
        }
    }
    Some(all)
}

/// Schema that stands for `unevaluatedProperties`; none if other keywords than `allOf` and `$ref`
/// may state properties.
pub fn unevaluated(root: &Value, fields: &Map<String, Value>) -> Option<Value> {
    let rest = fields.get("unevaluatedProperties")?;
    let (mut properties, mut patterns) = (Map::new(), Map::new());
    let mut open = vec![fields];
    for seen in 0.. {
        let Some(fields) = open.pop() else { break };
        let either = ["anyOf", "oneOf", "if", "dependentSchemas", "dependencies", "$dynamicRef"];
        if seen > MAX_PARTS || either.iter().any(|keyword| fields.contains_key(*keyword)) {
            return None;
        }
        if fields.contains_key("additionalProperties") {
            return Some(Value::Bool(true));
        }
        let names = |keyword| {
            let stated = fields.get(keyword).and_then(Value::as_object).into_iter().flatten();
            stated.map(|(name, _)| (name.clone(), Value::Bool(true)))
        };
        properties.extend(names("properties"));
        patterns.extend(names("patternProperties"));
        open.extend(
            fields
                .get("allOf")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_object),
        );
        if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
            open.extend(resolve(root, reference)?.1.as_object());
        }
    }
    Some(json!({"properties": properties, "patternProperties": patterns,
        "additionalProperties": rest}))
}

/// Strings of a list.
pub fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}
