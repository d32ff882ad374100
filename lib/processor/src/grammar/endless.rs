//! Endless schemas, which require an instance of themselves within each instance: no completion can
//! follow them.

use std::collections::HashSet;

use serde_json::Value;

/// Maximum number of passes over all references; what is not known to end then, counts as finite.
const MAX_PASSES: usize = 64;

/// True if every instance of `schema` contains another instance, without end.
pub fn is_endless(schema: &Value) -> bool {
    let mut search = Search { root: schema, seen: HashSet::new(), ending: HashSet::new() };
    for _ in 0..MAX_PASSES {
        let known = search.ending.len();
        if search.ends(schema) {
            return false;
        }
        if search.ending.len() == known {
            return true;
        }
        search.seen.clear();
    }
    false
}

struct Search<'a> {
    root: &'a Value,
    /// References that were followed in this pass.
    seen: HashSet<&'a str>,
    /// References that are known to be finite.
    ending: HashSet<&'a str>,
}

impl<'a> Search<'a> {
    /// True if `schema` is known to have an instance of finite size.
    fn ends(&mut self, schema: &'a Value) -> bool {
        if schema.get("enum").or_else(|| schema.get("const")).is_some() {
            return true;
        }
        self.reference(schema)
            && list(schema, "allOf").iter().all(|part| self.ends(part))
            && ["anyOf", "oneOf"].iter().all(|key| {
                let either = list(schema, key);
                either.is_empty() || either.iter().any(|part| self.ends(part))
            })
            && match schema["type"].as_str() {
                Some("object") => list(schema, "required").iter().all(|name| {
                    let property = name.as_str().and_then(|name| schema["properties"].get(name));
                    property.is_none_or(|property| self.ends(property))
                }),
                Some("array") => self.items(schema),
                _ => true,
            }
    }

    fn reference(&mut self, schema: &'a Value) -> bool {
        let Some(name) = schema["$ref"].as_str() else { return true };
        let Some(target) = name.strip_prefix('#').and_then(|path| self.root.pointer(path)) else {
            return true;
        };
        if self.ending.contains(name) || !self.seen.insert(name) {
            return self.ending.contains(name);
        }
        let ends = self.ends(target);
        if ends {
            self.ending.insert(name);
        }
        ends
    }

    fn items(&mut self, schema: &'a Value) -> bool {
        let first = list(schema, "prefixItems");
        let least = schema["minItems"].as_u64().unwrap_or(0) as usize;
        let more = least > first.len();
        first.iter().take(least).all(|item| self.ends(item))
            && (!more || schema.get("items").is_none_or(|item| self.ends(item)))
    }
}

fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema[key].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(node: Value) -> Value {
        json!({"$ref": "#/$defs/node", "$defs": {"node": node}})
    }

    #[test]
    fn what_holds_itself_is_endless() {
        let itself = json!({"$ref": "#/$defs/node"});
        let next = json!({"next": itself});
        let inner = json!({"type": "object", "properties": next, "required": ["next"]});
        for node in [
            itself.clone(),
            inner.clone(),
            json!({"allOf": [{"type": "object"}, itself]}),
            json!({"anyOf": [itself, inner]}),
            json!({"type": "array", "items": itself, "minItems": 1}),
            json!({"type": "array", "prefixItems": [{}, itself], "minItems": 2}),
        ] {
            assert!(is_endless(&with(node.clone())), "{node}");
        }
        assert!(is_endless(&json!({"$ref": "#"})));
    }

    #[test]
    fn what_may_do_without_itself_is_not() {
        let itself = json!({"$ref": "#/$defs/node"});
        let next = json!({"next": itself});
        for node in [
            json!({"type": "object", "properties": next}),
            json!({"type": ["object", "null"], "properties": next, "required": ["next"]}),
            json!({"anyOf": [itself, {"type": "null"}]}),
            json!({"type": "array", "items": itself}),
            json!({"type": "array", "prefixItems": [{}, itself], "minItems": 1}),
            json!({"$ref": "#/$defs/other"}),
            json!({"const": 1, "type": "object", "properties": next, "required": ["next"]}),
        ] {
            assert!(!is_endless(&with(node.clone())), "{node}");
        }
    }

    #[test]
    fn references_beside_each_other_are_followed_once() {
        let mut definitions = serde_json::Map::new();
        for n in 0..60 {
            let next = json!({"$ref": format!("#/$defs/{}", n + 1)});
            let node = json!({"type": "object", "properties": {"a": next, "b": next},
                "required": ["a", "b"]});
            definitions.insert(n.to_string(), node);
        }
        definitions.insert("60".into(), json!({"type": "string"}));
        assert!(!is_endless(&json!({"$ref": "#/$defs/0", "$defs": definitions})));
    }
}
