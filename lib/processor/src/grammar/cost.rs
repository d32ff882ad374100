//! Cost of combined patterns. If several patterns apply to one string, the lexer searches all
//! combinations of the byte sets that each of them allows next. Their number is a product, and the
//! search cannot be interrupted, so schemas with too many combinations are refused.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::Value;

use super::bounds::{self, closing};
use crate::cancel::Cancel;

/// Maximum number of combinations, as a power of two.
const MAX_BITS: f64 = 19.0;

/// Maximum number of visited patterns, including repeated visits.
const MAX_STEPS: usize = 5_000_000;

/// Maximum depth of nested references.
const MAX_DEPTH: usize = 500;

/// True if a string of `schema` has patterns with too many combinations, or the search for them was
/// cancelled.
pub fn is_wide(schema: &Value, cancel: &Cancel) -> bool {
    let known = HashMap::new();
    Search { root: schema, cancel, known, steps: 0, depth: 0, lost: false }.is_wide(schema)
}

/// True if a grammar joins terminals by `&` that have too many combinations.
pub fn is_wide_grammar(text: &str) -> bool {
    let (joined, mut literals) = terminals(text);
    literals.sort_by(|a, b| b.total_cmp(a));
    joined > 0 && literals.iter().take(joined + 1).sum::<f64>() > MAX_BITS
}

/// Patterns of one string, with the number of byte sets of each, as a power of two.
type Patterns<'a> = BTreeMap<&'a str, f64>;

/// Patterns of all strings within a value, by property name; the value itself has an empty name.
type Named<'a> = HashMap<&'a str, Patterns<'a>>;

/// Name of strings that may have any property name.
const ANY: &str = "*";

struct Search<'a> {
    root: &'a Value,
    cancel: &'a Cancel,
    /// Patterns of references; empty for those that are being resolved.
    known: HashMap<&'a str, Rc<Named<'a>>>,
    steps: usize,
    depth: usize,
    /// True if a limit of the search was exceeded.
    lost: bool,
}

impl<'a> Search<'a> {
    fn is_wide(&mut self, schema: &'a Value) -> bool {
        if joins(schema) {
            let named = self.named(schema);
            let any = named.get(ANY).map_or(0.0, bits);
            let wide = named.values().any(|patterns| bits(patterns) + any > MAX_BITS);
            if wide || self.lost {
                return true;
            }
        }
        match schema {
            Value::Object(fields) => fields.values().any(|value| self.is_wide(value)),
            Value::Array(items) => items.iter().any(|item| self.is_wide(item)),
            _ => false,
        }
    }

    /// Patterns of the strings within a value of `schema`.
    fn named(&mut self, schema: &'a Value) -> Named<'a> {
        self.lost |= self.steps > MAX_STEPS || self.cancel.is_requested();
        if self.lost {
            return Named::new();
        }
        let mut all = Named::from([("", own(schema))]);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.below(&mut all, name, property);
        }
        for value in ["items", "additionalProperties"].iter().filter_map(|key| schema.get(key)) {
            self.below(&mut all, ANY, value);
        }
        let patterned = schema["patternProperties"].as_object().into_iter().flatten();
        let patterned = patterned.map(|(_, property)| property);
        for value in patterned.chain(list(schema, "prefixItems")) {
            self.below(&mut all, ANY, value);
        }
        for part in list(schema, "allOf") {
            let part = self.named(part);
            self.both(&mut all, &part);
        }
        for key in ["anyOf", "oneOf"] {
            let mut either = Named::new();
            for part in list(schema, key) {
                let part = self.named(part);
                self.either(&mut either, part);
            }
            self.both(&mut all, &either);
        }
        if let Some(name) = schema["$ref"].as_str() {
            let target = self.reference(name);
            self.both(&mut all, &target);
        }
        all
    }

    fn reference(&mut self, name: &'a str) -> Rc<Named<'a>> {
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let target = name.strip_prefix('#').and_then(|path| self.root.pointer(path));
        self.known.insert(name, Rc::default());
        self.lost |= self.depth > MAX_DEPTH;
        let Some(target) = target.filter(|_| !self.lost) else { return Rc::default() };
        self.depth += 1;
        let named = Rc::new(self.named(target));
        self.depth -= 1;
        self.known.insert(name, named.clone());
        named
    }

    /// Adds the patterns of the property `name`.
    fn below(&mut self, all: &mut Named<'a>, name: &'a str, schema: &'a Value) {
        let mut named = self.named(schema);
        if let Some(own) = named.remove("") {
            self.either(all, Named::from([(name, own)]));
        }
        self.either(all, named);
    }

    /// Adds the patterns of an alternative: the wider ones count.
    fn either(&mut self, all: &mut Named<'a>, others: Named<'a>) {
        self.steps += others.len();
        for (name, patterns) in others {
            let known = all.entry(name).or_default();
            if bits(&patterns) > bits(known) {
                *known = patterns;
            }
        }
    }

    /// Adds patterns that apply at the same time.
    fn both(&mut self, all: &mut Named<'a>, more: &Named<'a>) {
        for (name, patterns) in more {
            self.steps += 1 + patterns.len();
            all.entry(name).or_default().extend(patterns);
        }
    }
}

/// True if several schemas apply to the same value.
fn joins(schema: &Value) -> bool {
    let kinds = ["allOf", "anyOf", "oneOf", "$ref"].iter().filter(|key| schema.get(key).is_some());
    let own = ["pattern", "format", "properties", "items", "prefixItems", "patternProperties"];
    list(schema, "allOf").len() > 1
        || kinds.count() + usize::from(own.iter().any(|key| schema.get(key).is_some())) > 1
}

/// Patterns that a schema itself has for a string.
fn own(schema: &Value) -> Patterns<'_> {
    let mut own = Patterns::new();
    if let Some(pattern) = schema["pattern"].as_str() {
        own.insert(pattern, bits_of(pattern));
    }
    if let Some(format) = schema["format"].as_str() {
        own.insert(format, 5.0);
    }
    if schema.get("minLength").or_else(|| schema.get("maxLength")).is_some() {
        own.insert("length", bits_of("."));
    }
    own
}

/// Number of byte sets that a pattern may allow next, as a power of two.
fn bits_of(pattern: &str) -> f64 {
    (bounds::width(pattern).max(1) as f64).log2()
}

/// Number of joins in a grammar, and the widths of its literals.
fn terminals(text: &str) -> (usize, Vec<f64>) {
    let (mut joined, mut widths, mut rest) = (0, Vec::new(), text);
    while let Some(at) = rest.find(['&', '"', '/']) {
        let (sign, after) = rest[at..].split_at(1);
        rest = match sign {
            "&" => {
                joined += 1;
                after
            }
            "/" if after.starts_with('/') => after.split_once('\n').map_or("", |(_, next)| next),
            quote => {
                let end = closing(after, if quote == "/" { '/' } else { '"' });
                widths.push(bits_of(&after[..end]));
                after.get(end + 1..).unwrap_or_default()
            }
        };
    }
    (joined, widths)
}

fn bits(patterns: &Patterns) -> f64 {
    patterns.values().sum()
}

fn list<'a>(schema: &'a Value, key: &str) -> &'a [Value] {
    schema[key].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pattern(n: usize) -> Value {
        json!({"type": "string", "pattern": format!("(a|b)*a(a|b){{{n}}}")})
    }

    #[test]
    fn many_patterns_of_one_text_are_wide() {
        let all: Vec<Value> = (0..20).map(pattern).collect();
        let within = |key: &str| -> Vec<Value> {
            all.iter().map(|part| json!({"type": "object", "properties": {key: part}})).collect()
        };
        let items: Vec<Value> = all.iter().map(|part| json!({"items": part})).collect();
        let chain: serde_json::Map<String, Value> = (0..20)
            .map(|n| {
                let mut part = pattern(n);
                part["$ref"] = format!("#/$defs/{}", n + 1).into();
                (n.to_string(), part)
            })
            .collect();
        let either: Vec<Value> = all.iter().map(|part| json!({"anyOf": [part, {}]})).collect();
        for schema in [
            json!({"allOf": all}),
            json!({"allOf": within("a")}),
            json!({"allOf": within("a"), "description": "a"}),
            json!({"properties": {"b": {"type": "array", "items": {"allOf": items}}}}),
            json!({"allOf": either}),
            json!({"$ref": "#/$defs/0", "$defs": chain}),
        ] {
            assert!(is_wide(&schema, &Cancel::default()), "{schema}");
        }
        let joined: Vec<String> = (0..20).map(|n| format!("/(a|b)*a(a|b){{{n}}}/")).collect();
        assert!(is_wide_grammar(&format!("start: A\nA: {}", joined.join(" & "))));
    }

    #[test]
    fn patterns_of_different_texts_are_not() {
        let each = |n: usize| json!({"properties": {format!("p{n}"): pattern(n)}});
        let kinds: Vec<Value> = (0..20)
            .map(|n| json!({"properties": {"value": pattern(n)}, "required": ["value"]}))
            .collect();
        let base = json!({"properties": {"id": {"format": "uuid"}, "at": {"format": "date-time"}}});
        let next = json!({"allOf": [{"$ref": "#/$defs/base"}, {"properties": {
            "id": {"format": "uuid"}, "next": {"$ref": "#/$defs/next"}}}]});
        for schema in [
            json!({"allOf": (0..20).map(each).collect::<Vec<_>>()}),
            json!({"allOf": [base, {"anyOf": kinds}]}),
            json!({"allOf": [base, base, base, base, base, base]}),
            json!({"$ref": "#/$defs/next", "$defs": {"base": base, "next": next}}),
            json!({"pattern": "^[a-z]+$", "format": "email", "minLength": 3}),
        ] {
            assert!(!is_wide(&schema, &Cancel::default()), "{schema}");
        }
        let many: Vec<String> = (0..20).map(|n| format!("/a{{{n}}}/ \"&\" // & {n}\n")).collect();
        assert!(!is_wide_grammar(&format!("start: {}", many.join(" | "))));
        assert!(!is_wide_grammar("start: A\nA: /[a-z]+/ & /.{3}/"));
    }
}
