//! Keywords of arrays that need memory of earlier items, by schemas that need none.

use serde_json::{Map, Value, json};

use super::kinds::{Kinds, is_nullable, same};
use super::refs::follow;

/// Position up to which the items that `contains` demands may begin, if nothing bounds the array.
const MAX_START: u64 = 8;

/// Maximum number of alternatives that stand for one keyword.
const MAX_EITHER: u64 = 400;

/// Keywords of strings and numbers that may leave no other value behind one.
const ENDING: [&str; 16] = [
    "enum",
    "const",
    "pattern",
    "format",
    "maxLength",
    "maximum",
    "exclusiveMaximum",
    "multipleOf",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "$ref",
    "$dynamicRef",
    "nullable",
];

/// Items of an array, by position.
pub struct Items<'a> {
    /// Schemas of the first items.
    pub first: &'a [Value],
    /// Schema of the items behind them.
    pub rest: Option<&'a Value>,
}

impl<'a> Items<'a> {
    /// Items that the keywords of a schema describe, in the form of any draft.
    pub fn of(fields: &'a Map<String, Value>) -> Items<'a> {
        let prefix = fields.get("prefixItems").and_then(Value::as_array);
        match fields.get("items") {
            Some(Value::Array(first)) => Items { first, rest: fields.get("additionalItems") },
            rest => Items { first: prefix.map_or(&[], Vec::as_slice), rest },
        }
    }

    fn at(&self, place: usize) -> Value {
        self.first.get(place).or(self.rest).cloned().unwrap_or(Value::Bool(true))
    }
}

/// Schema of arrays in which as many items follow `contains` as `minContains` and `maxContains`
/// say; these items follow each other. None if it is too large.
pub fn containing(fields: &Map<String, Value>) -> Option<Value> {
    let wanted = fields.get("contains")?;
    let count = |keyword: &str| fields.get(keyword).map(Value::as_u64);
    let least = count("minContains").unwrap_or(Some(1))?;
    let most = match count("maxContains") {
        Some(most) => Some(most?),
        None => None,
    };
    let (items, other) = (Items::of(fields), json!({"not": wanted}));
    let bounded = most.is_some();
    let outside = |schema: Value| match bounded {
        true => json!({"allOf": [schema, other]}),
        false => schema,
    };
    let with = |start: u64, run: u64| {
        let (start, end) = (start as usize, (start + run) as usize);
        let first: Vec<Value> = (0..end.max(items.first.len()))
            .map(|place| match (start..end).contains(&place) {
                true => json!({"allOf": [items.at(place), wanted]}),
                false => outside(items.at(place)),
            })
            .collect();
        let rest = outside(items.rest.cloned().unwrap_or(Value::Bool(true)));
        json!({"type": "array", "prefixItems": first, "items": rest, "minItems": end})
    };
    let longest = match fields.get("maxItems") {
        Some(most) => most.as_u64()?,
        None => least.saturating_add(MAX_START),
    };
    // Without a bound, more items than the least may follow anyway.
    let runs = least..=most.unwrap_or(least);
    if runs.end().saturating_mul(longest) > MAX_EITHER {
        return None;
    }
    let mut either = vec![json!({"type": ["null", "boolean", "number", "string", "object"]})];
    for run in runs {
        let starts = longest.checked_sub(run).map_or(0..0, |last| 0..last + 1);
        // No item is wanted at any place alike.
        either.extend(starts.take(if run == 0 { 1 } else { usize::MAX }).map(|at| with(at, run)));
    }
    Some(json!({"anyOf": either}))
}

/// Schema of arrays without equal items, for items with few values; none if they have more.
pub fn unique(root: &Value, fields: &Map<String, Value>) -> Option<Value> {
    let items = Items::of(fields);
    let longest = fields.get("maxItems").and_then(Value::as_u64);
    let closed = items.rest == Some(&Value::Bool(false)) && items.first.len() < 2;
    if longest.is_some_and(|longest| longest < 2) || closed {
        return Some(Value::Bool(true));
    }
    let values = values(root, items.rest?).filter(|_| items.first.is_empty())?;
    let longest = longest.unwrap_or(u64::MAX).min(values.len() as u64);
    let lists = (0..longest).try_fold((1, 1), |(all, last), place| {
        let lists: u64 = last * (values.len() as u64 - place);
        Some((all + lists, lists)).filter(|(all, _)| *all <= MAX_EITHER)
    });
    lists?;
    let mut either = vec![json!({"type": ["null", "boolean", "number", "string", "object"]})];
    let mut open = vec![Vec::new()];
    while let Some(list) = open.pop() {
        let constants: Vec<Value> = list.iter().map(|value| json!({"const": value})).collect();
        let length = constants.len();
        either.push(json!({"type": "array", "prefixItems": constants, "items": false,
            "minItems": length}));
        if (length as u64) < longest {
            let left = values.iter().filter(|value| !list.iter().any(|used| same(used, value)));
            open.extend(left.map(|value| [&list[..], std::slice::from_ref(value)].concat()));
        }
    }
    Some(json!({"anyOf": either}))
}

/// True if the items of an array are strings or numbers of which there are always more: each can be
/// continued to another one.
pub fn has_endless_items(root: &Value, fields: &Map<String, Value>) -> bool {
    let items = Items::of(fields);
    let Some(item) = items.rest.filter(|_| items.first.is_empty()) else { return false };
    let Some(fields) = follow(root, item).as_object() else { return false };
    let kinds = fields.get("type").and_then(Kinds::of_type).unwrap_or(Kinds::ALL);
    !kinds.is_empty()
        && kinds.and(Kinds::STRING.or(Kinds::NUMBER)) == kinds
        && fields.iter().all(|(keyword, value)| match keyword.as_str() {
            "minimum" | "exclusiveMinimum" => value.as_f64().is_some_and(|least| least >= 0.0),
            keyword => !ENDING.contains(&keyword),
        })
}

/// All values that a schema allows, if its keywords list them.
fn values(root: &Value, schema: &Value) -> Option<Vec<Value>> {
    let fields = follow(root, schema).as_object().filter(|fields| !is_nullable(fields))?;
    let listed = match (fields.get("const"), fields.get("enum")) {
        (Some(value), _) => vec![value.clone()],
        (None, Some(values)) => values.as_array()?.clone(),
        (None, None) => match fields.get("type")?.as_str()? {
            "boolean" => vec![json!(true), json!(false)],
            "null" => vec![Value::Null],
            _ => return None,
        },
    };
    let mut values: Vec<Value> = Vec::new();
    for value in listed {
        if !values.iter().any(|known| same(known, &value)) {
            values.push(value);
        }
    }
    Some(values)
}
