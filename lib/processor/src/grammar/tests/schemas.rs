//! Schemas as clients send them: what their grammars allow follows them.

use arbtest::arbitrary::{Result as Drawn, Unstructured};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{Matcher, accepts, compiled, end, vocabulary};

/// Maximum length of an answer in bytes; longer ones are given up.
const MAX_LENGTH: usize = 600;

/// Text of an answer that a grammar allows, drawn byte by byte; none if it becomes too long.
fn drawn(mut matcher: Matcher, u: &mut Unstructured) -> Drawn<Option<String>> {
    let mut text = Vec::new();
    while text.len() < MAX_LENGTH {
        let mask = matcher.compute_mask_or_eos().unwrap();
        let allowed: Vec<u8> = (0..=255u8).filter(|&b| mask.is_allowed(b.into())).collect();
        let over = mask.is_allowed(end()) && (text.len() > 100 || u.ratio(1, 3)?);
        if over || allowed.is_empty() {
            return Ok(Some(String::from_utf8(text).unwrap()));
        }
        let of = |wanted: &dyn Fn(&u8) -> bool| -> Vec<u8> {
            allowed.iter().copied().filter(wanted).collect()
        };
        let close = of(&|b| b"\"]}".contains(b));
        let signs = of(&|b| b"[{:,.-+@".contains(b));
        let plain = of(&u8::is_ascii_alphanumeric);
        let among = match u.int_in_range(0..=9)? {
            _ if !close.is_empty() && text.len() > 200 => &close,
            0..=3 if !close.is_empty() => &close,
            4..=5 if !signs.is_empty() => &signs,
            6..=8 if !plain.is_empty() => &plain,
            _ => &allowed,
        };
        let byte = *u.choose(among)?;
        assert_eq!(matcher.try_consume_tokens(&[byte.into()]).unwrap(), 1);
        text.push(byte);
    }
    Ok(None)
}

/// Validator of a schema, for which null follows `nullable` as OpenAPI has it.
fn validator(schema: &Value) -> Validator {
    fn plain(schema: &Value) -> Value {
        match schema {
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(name, _)| *name != "nullable");
                let fields = fields.map(|(name, value)| match (name.as_str(), value) {
                    ("type", Value::String(kind)) => (name.clone(), kind.to_lowercase().into()),
                    _ => (name.clone(), plain(value)),
                });
                let fields = fields.collect();
                match schema["nullable"] == true {
                    true => json!({"anyOf": [Value::Object(fields), {"type": "null"}]}),
                    false => Value::Object(fields),
                }
            }
            Value::Array(items) => items.iter().map(plain).collect(),
            value => value.clone(),
        }
    }
    jsonschema::options().should_validate_formats(true).build(&plain(schema)).unwrap()
}

/// Schemas that clients send, with texts that follow them and texts that do not.
fn schemas() -> Vec<(Value, Vec<Value>, Vec<Value>)> {
    let text = |format: &str| json!({"type": "string", "format": format});
    vec![
        (text("email"), vec![json!("a.b+c@d-e.org")], vec![json!("a"), json!("@b.de")]),
        (text("hostname"), vec![json!("a-1.example.org")], vec![json!("-a"), json!("a..b")]),
        (
            text("date-time"),
            vec![json!("2024-02-29T23:59:59.5+01:00")],
            vec![json!("2023-02-29T10:00:00Z")],
        ),
        (text("time"), vec![json!("10:00:00Z")], vec![json!("25:00:00Z")]),
        (text("duration"), vec![json!("P1DT2H")], vec![json!("1D")]),
        (
            text("uuid"),
            vec![json!("2eb8aa08-aa98-11ea-b4aa-73b441d16380")],
            vec![json!("2eb8aa08")],
        ),
        (text("ipv6"), vec![json!("::1")], vec![json!("12345::")]),
        // Formats that are annotations: pydantic, OpenAPI, MCP.
        (
            json!({"type": "object", "additionalProperties": false, "required": ["a", "b", "c"],
                "properties": {"a": {"type": "string", "format": "path"},
                    "b": {"type": "string", "format": "password", "writeOnly": true},
                    "c": {"type": "string", "format": "binary"},
                    "d": {"type": "integer", "format": "int32"},
                    "e": {"type": "string", "format": "url", "default": "x", "examples": ["y"]}}}),
            vec![json!({"a": "/x", "b": "", "c": "z"}), json!({"a": "", "b": "", "c": "", "d": 1})],
            vec![json!({"a": "/x"})],
        ),
        // pydantic v2: Optional, Literal, datetime, constrained types, dict, tuple, bytes.
        (
            json!({"type": "object", "title": "Model", "required": ["name", "kind", "at"], "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]+$", "title": "N"},
                "kind": {"const": "a", "default": "a", "type": "string"},
                "at": {"type": "string", "format": "date-time"},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null},
                "n": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10},
                "of": {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 3},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}],
                    "minItems": 2, "maxItems": 2}}}),
            vec![
                json!({"name": "abc", "kind": "a", "at": "2024-02-29T10:00:00Z", "note": null, "n": 9,
                    "of": 2.5, "map": {"x": 1}, "pair": [1, "b"]}),
                json!({"name": "abc", "kind": "a", "at": "2024-02-28T10:00:00Z", "note": "x"}),
            ],
            vec![json!({"name": "", "kind": "a", "at": "2024-02-28T10:00:00Z"})],
        ),
        // pydantic's Decimal.
        (
            json!({"anyOf": [{"type": "number"},
                {"type": "string", "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"}]}),
            vec![json!(1.5), json!("1.50"), json!("-0.1")],
            vec![json!(""), json!("-."), json!("a")],
        ),
        (
            json!({"type": "string", "pattern":
                "^(?!^[-+.]*$)[+-]?0*(?:\\d{0,3}|(?=[\\d.]{1,6}0*$)\\d{0,3}\\.\\d{0,2}0*$)"}),
            vec![json!("123.45"), json!("-1.5000")],
            vec![json!("."), json!("-.")],
        ),
        // Discriminated union of references.
        (
            json!({"type": "object", "required": ["pet"], "additionalProperties": false,
                "properties": {"pet": {"discriminator": {"propertyName": "t",
                    "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
                    "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}},
                "$defs": {
                    "Cat": {"type": "object", "required": ["t", "lives"], "properties":
                        {"t": {"const": "cat"}, "lives": {"type": "integer"}}},
                    "Dog": {"type": "object", "required": ["t"], "properties":
                        {"t": {"const": "dog"}, "friends": {"type": "array", "items": {"$ref": "#/$defs/Cat"}}}}}}),
            vec![
                json!({"pet": {"t": "cat", "lives": 9}}),
                json!({"pet": {"t": "dog", "friends": []}}),
            ],
            vec![json!({"pet": {"t": "cat"}}), json!({"pet": {"t": "cow"}})],
        ),
        // Recursion, with annotations beside the references and names that are escaped.
        (
            json!({"$ref": "#/$defs/a~1node%20x", "$defs": {"a/node x": {"type": "object", "required": ["v"],
                "additionalProperties": false, "properties": {"v": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/a~1node%20x", "description": "d"}, {"type": "null"}]}}}}}),
            vec![json!({"v": 1, "next": {"v": 2, "next": null}})],
            vec![json!({"next": null})],
        ),
        (
            json!({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
                "additionalProperties": false}),
            vec![json!({"children": [{}, {"children": []}]})],
            vec![json!({"children": [1]})],
        ),
        // zod: draft-07 with definitions, tuples, records and nullable.
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/x",
                "definitions": {"x": {"type": "object", "required": ["t", "r"], "additionalProperties": false,
                    "properties": {"t": {"type": "array", "minItems": 2, "maxItems": 2,
                        "items": [{"type": "number"}, {"type": ["string", "null"]}]},
                    "r": {"type": "object", "additionalProperties": {},
                        "propertyNames": {"enum": ["a", "b"]}}}}}}),
            vec![json!({"t": [1, null], "r": {"a": 1}})],
            vec![json!({"t": [1], "r": {}}), json!({"t": [1, "x"], "r": {"c": 1}})],
        ),
        (
            json!({"type": "object", "propertyNames": {"type": "string", "pattern": "^[a-z]{2}$"},
                "additionalProperties": {"type": "string"}}),
            vec![json!({"de": "x", "en": "y"}), json!({})],
            vec![json!({"d": "x"}), json!({"de": 1})],
        ),
        (
            json!({"type": "string", "format": "email", "pattern":
                "^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$"}),
            vec![json!("a.b@c.de")],
            vec![json!("a..b@c.de"), json!("a@b")],
        ),
        // MCP: uri, defaults, free objects.
        (
            json!({"type": "object", "properties": {"url": {"type": "string", "format": "uri"},
                "headers": {"type": "object", "additionalProperties": {}},
                "raw": {"type": "boolean", "default": false}}, "required": ["url"],
                "additionalProperties": false, "$schema": "http://json-schema.org/draft-07/schema#"}),
            vec![
                json!({"url": "https://example.com/x?y=1"}),
                json!({"url": "a:b", "headers": {"a": [1]}}),
            ],
            vec![json!({"url": "x y"}), json!({})],
        ),
        // OpenAI's strict example.
        (
            json!({"type": "object", "properties": {"location": {"type": "string", "description": "d"},
                "units": {"type": ["string", "null"], "enum": ["celsius", "fahrenheit", null]}},
                "required": ["location", "units"], "additionalProperties": false}),
            vec![json!({"location": "x", "units": null})],
            vec![json!({"location": "x"}), json!({"location": "x", "units": "kelvin"})],
        ),
        // Gemini and OpenAPI 3.0.
        (
            json!({"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": true, "format": "enum",
                "enum": ["x", "y"]}, "b": {"type": "INTEGER", "format": "int64", "nullable": true}},
                "required": ["a", "b"], "propertyOrdering": ["a", "b"]}),
            vec![json!({"a": null, "b": null}), json!({"a": "x", "b": 1})],
            vec![json!({"a": "z", "b": 1})],
        ),
        // Sets.
        (
            json!({"type": "array", "items": {"enum": ["a", "b", "c"], "type": "string"}, "uniqueItems": true}),
            vec![json!([]), json!(["c", "a"]), json!(["b", "a", "c"])],
            vec![json!(["a", "a"]), json!(["a", "b", "a"])],
        ),
        (
            json!({"type": "array", "items": {"type": "boolean"}, "uniqueItems": true, "minItems": 1}),
            vec![json!([true]), json!([false, true])],
            vec![json!([]), json!([true, true])],
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true, "maxItems": 1}),
            vec![json!(["a"])],
            vec![json!(["a", "a"])],
        ),
        (
            json!({"type": "object", "required": ["tags", "ids"], "additionalProperties": false, "properties": {
                "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
                "ids": {"type": "array", "items": {"type": "integer", "minimum": 0}, "uniqueItems": true},
                "any": {"type": "array", "items": {"type": "integer"}}}}),
            vec![
                json!({"tags": [], "ids": []}),
                json!({"tags": ["a", "b", "ab", "\"", ""], "ids": [0, 1, 10, 100], "any": [1, 1]}),
            ],
            vec![
                json!({"tags": ["a", "b", "a"], "ids": []}),
                json!({"tags": [], "ids": [0, 1, 0]}),
                json!({"tags": [], "ids": [10, 1, 10]}),
            ],
        ),
        (
            json!({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/set"}],
                "$defs": {"set": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}}}),
            vec![json!(null), json!(["x", "y"])],
            vec![json!(["x", "x"])],
        ),
        // contains.
        (
            json!({"type": "array", "items": {"type": "integer"}, "contains": {"const": 5}}),
            vec![json!([5]), json!([1, 2, 5, 3])],
            vec![json!([]), json!([1])],
        ),
        (
            json!({"type": "array", "contains": {"type": "string"}, "minContains": 2, "maxContains": 3, "maxItems": 5}),
            vec![json!(["a", "b"]), json!([1, "a", "b", "c", 2])],
            vec![json!(["a"]), json!(["a", "b", "c", "d"])],
        ),
        (
            json!({"type": "array", "contains": {"type": "string"}, "minContains": 0, "maxContains": 1, "maxItems": 3}),
            vec![json!([]), json!([1, 2]), json!([1, "a"])],
            vec![json!(["a", "b"])],
        ),
        // not.
        (
            json!({"type": "string", "not": {"enum": ["a", "b"]}}),
            vec![json!(""), json!("ab"), json!("c")],
            vec![json!("a"), json!("b")],
        ),
        (json!({"type": "integer", "not": {"const": 5}}), vec![json!(4), json!(6)], vec![json!(5)]),
        (
            json!({"not": {"type": ["string", "object", "array"]}}),
            vec![json!(1), json!(null)],
            vec![json!("a"), json!([])],
        ),
        (
            json!({"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": false,
                "not": {"required": ["a", "b"]}}),
            vec![json!({"a": 1}), json!({"b": 1}), json!({})],
            vec![json!({"a": 1, "b": 1})],
        ),
        (
            json!({"type": "string", "not": {"pattern": "^a"}}),
            vec![json!("b"), json!("")],
            vec![json!("a"), json!("ab")],
        ),
        // if, then, else.
        (
            json!({"type": "object", "properties": {"country": {"enum": ["US", "NL"]}, "zip": {"type": "string"}},
                "required": ["country", "zip"], "additionalProperties": false,
                "if": {"properties": {"country": {"const": "US"}}, "required": ["country"]},
                "then": {"properties": {"zip": {"pattern": "^[0-9]{5}$"}}},
                "else": {"properties": {"zip": {"pattern": "^[0-9]{4} [A-Z]{2}$"}}}}),
            vec![
                json!({"country": "US", "zip": "12345"}),
                json!({"country": "NL", "zip": "1234 AB"}),
            ],
            vec![
                json!({"country": "US", "zip": "1234 AB"}),
                json!({"country": "NL", "zip": "12345"}),
            ],
        ),
        // oneOf.
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "additionalProperties": false, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            vec![json!({"a": "x"}), json!({"b": "x"})],
            vec![json!({}), json!({"a": "x", "b": "y"})],
        ),
        (
            json!({"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 10}]}),
            vec![json!(-5), json!(15)],
            vec![json!(5)],
        ),
        (
            json!({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "pattern": "^a"}, {"type": "null"}]}),
            vec![json!("b"), json!("abcd"), json!(null)],
            vec![json!("a"), json!("bcde")],
        ),
        (
            json!({"type": "string", "oneOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
            vec![json!("127.0.0.1"), json!("::1")],
            vec![json!("x")],
        ),
        (
            json!({"oneOf": [
                {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]}]}),
            vec![json!({"a": "x"}), json!({"b": 1}), json!({"a": "x", "b": "y"})],
            vec![json!({"a": "x", "b": 1}), json!({})],
        ),
        // Bounds of zod's numbers and texts.
        (
            json!({"type": "object", "required": ["n", "s"], "additionalProperties": false, "properties": {
                "n": {"type": "integer", "minimum": -9007199254740991_i64, "maximum": 9007199254740991_i64},
                "s": {"type": "string", "maxLength": 9007199254740991_i64}}}),
            vec![json!({"n": -5, "s": "x"}), json!({"n": 9007199254740991_i64, "s": ""})],
            vec![json!({"n": 1.5, "s": ""})],
        ),
        (
            json!({"type": "string", "format": "date"}),
            vec![json!("2024-02-29"), json!("2000-02-29")],
            vec![json!("2023-02-29"), json!("1900-02-29"), json!("2024-13-01")],
        ),
        // Dependent properties.
        (
            json!({"type": "object", "properties": {"card": {"type": "integer"}, "address": {"type": "string"}},
                "additionalProperties": false, "dependentRequired": {"card": ["address"]}}),
            vec![json!({"address": "x"}), json!({"card": 1, "address": "x"}), json!({})],
            vec![json!({"card": 1})],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "dependencies": {"a": {"required": ["b"], "properties": {"b": {"minimum": 5}}}},
                "additionalProperties": false}),
            vec![json!({"b": 1}), json!({"a": 1, "b": 5})],
            vec![json!({"a": 1}), json!({"a": 1, "b": 4})],
        ),
        // Numbers of properties.
        (
            json!({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 1,
                "maxProperties": 2, "additionalProperties": false}),
            vec![json!({"a": 1}), json!({"b": 1, "c": 2})],
            vec![json!({}), json!({"a": 1, "b": 1, "c": 1})],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "minProperties": 1}),
            vec![json!({"a": 1})],
            vec![json!({})],
        ),
        // allOf, references with siblings, and what is not evaluated.
        (
            json!({"allOf": [{"$ref": "#/$defs/base"}, {"type": "object", "properties": {"b": {"type": "integer"}},
                "required": ["b"]}], "unevaluatedProperties": false,
                "$defs": {"base": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}}}),
            vec![json!({"a": "x", "b": 1})],
            vec![json!({"a": "x"}), json!({"a": "x", "b": 1, "c": 1})],
        ),
        (
            json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/s", "maxLength": 2, "description": "x"}},
                "required": ["a"], "additionalProperties": false, "$defs": {"s": {"type": "string", "minLength": 1}}}),
            vec![json!({"a": "ab"})],
            vec![json!({"a": ""}), json!({"a": "abc"})],
        ),
        (
            json!({"type": "object", "patternProperties": {"^x-": {"type": "integer"}, "^y(?!z)": {"type": "string"}},
                "additionalProperties": false}),
            vec![json!({"x-a": 1, "ya": "b"})],
            vec![json!({"x-a": "b"}), json!({"yz": "b"}), json!({"a": 1})],
        ),
        // Constants.
        (
            json!({"enum": [1, 1.5, "é\"", null, [1, {"a": true}]]}),
            vec![json!(1), json!(1.5), json!("é\""), json!([1, {"a": true}])],
            vec![json!(2), json!([1])],
        ),
    ]
}

#[test]
fn what_a_grammar_allows_follows_the_schema_of_the_client() {
    let vocabulary = vocabulary();
    let mut wrong = Vec::new();
    for (schema, follow, others) in schemas() {
        let grammar = match compiled(&vocabulary, &schema) {
            Ok(grammar) => grammar,
            Err(e) => {
                wrong.push(format!("{e}: {schema}"));
                continue;
            }
        };
        let validator = validator(&schema);
        for (values, follows) in [(follow, true), (others, false)] {
            for value in values {
                assert_eq!(validator.is_valid(&value), follows, "{value}: {schema}");
                if accepts(&grammar, &value.to_string()) != follows {
                    wrong.push(format!("{value} is not told apart by {schema}"));
                }
            }
        }
        let mut whole = 0;
        arbtest::arbtest(|u| {
            let Some(text) = drawn(grammar.clone(), u)? else { return Ok(()) };
            whole += 1;
            match serde_json::from_str(&text) {
                Ok(value) if validator.is_valid(&value) => {}
                Err(e) if e.to_string().contains("out of range") => {}
                _ => wrong.push(format!("{text} does not follow {schema}")),
            }
            Ok(())
        })
        .size_min(4_096)
        .budget_ms(200);
        if whole == 0 {
            wrong.push(format!("no answer follows {schema}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
