//! References within a JSON schema: JSON pointers, anchors and ids.

use serde_json::Value;

/// Maximum number of references that follow each other.
const MAX_HOPS: usize = 32;

/// Target of a `$ref` within `root`, with its JSON pointer; none if it is outside, or missing.
pub fn resolve<'a>(root: &'a Value, reference: &str) -> Option<(String, &'a Value)> {
    let (base, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    let (within, document) = match base {
        "" => (String::new(), root),
        base => find(root, &|schema| has_id(schema, base))?,
    };
    let fragment = decoded(fragment)?;
    if fragment.is_empty() || fragment.starts_with('/') {
        return Some((format!("{within}{fragment}"), document.pointer(&fragment)?));
    }
    let anchored = |schema: &Value| {
        ["$anchor", "$dynamicAnchor"].iter().any(|key| schema[*key] == *fragment)
            || ["$id", "id"]
                .iter()
                .any(|key| schema[*key].as_str() == Some(&format!("#{fragment}")))
    };
    let (path, target) = find(document, &anchored)?;
    Some((format!("{within}{path}"), target))
}

/// Schema behind the references that `schema` consists of; `schema` itself if it is no reference.
pub fn follow<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..MAX_HOPS {
        match schema["$ref"].as_str().and_then(|reference| resolve(root, reference)) {
            Some((_, target)) => schema = target,
            None => break,
        }
    }
    schema
}

/// JSON pointer `pointer` with one more token.
pub fn join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

fn has_id(schema: &Value, base: &str) -> bool {
    let ids = ["$id", "id"].iter().filter_map(|key| schema[*key].as_str());
    ids.map(|id| id.trim_end_matches('#'))
        .any(|id| id == base || id.strip_suffix(base).is_some_and(|before| before.ends_with('/')))
}

/// First value within `value` for which `wanted` is true, with its JSON pointer.
fn find<'a>(value: &'a Value, wanted: &dyn Fn(&Value) -> bool) -> Option<(String, &'a Value)> {
    let mut open = vec![(String::new(), value)];
    while let Some((path, value)) = open.pop() {
        if value.is_object() && wanted(value) {
            return Some((path, value));
        }
        match value {
            Value::Object(fields) => {
                open.extend(fields.iter().rev().map(|(name, value)| (join(&path, name), value)));
            }
            Value::Array(items) => {
                let items = items.iter().enumerate().rev();
                open.extend(items.map(|(n, value)| (join(&path, &n.to_string()), value)));
            }
            _ => {}
        }
    }
    None
}

/// Text of a fragment, whose bytes may be percent-encoded.
fn decoded(fragment: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = fragment.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match (first, code.and_then(|code| u8::from_str_radix(code, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pointers_anchors_and_ids_lead_to_their_schemas() {
        let root = json!({"$id": "https://example.com/root", "$defs": {
            "a/b c": {"const": 1}, "x": {"$anchor": "here", "const": 2},
            "y": {"$id": "other.json", "$defs": {"z": {"const": 3}}}}});
        for (reference, pointer) in [
            ("#", ""),
            ("https://example.com/root#", ""),
            ("#/$defs/a~1b%20c", "/$defs/a~1b c"),
            ("#here", "/$defs/x"),
            ("other.json#/$defs/z", "/$defs/y/$defs/z"),
        ] {
            let (path, target) = resolve(&root, reference).unwrap();
            assert_eq!((path.as_str(), target), (pointer, root.pointer(pointer).unwrap()));
        }
        for reference in ["#/$defs/none", "#none", "http://example.com/x", "#/%ff"] {
            assert_eq!(resolve(&root, reference), None, "{reference}");
        }
    }
}
