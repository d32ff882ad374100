//! Schemas that no grammar holds: refused by name, or left to the model.

use serde_json::{Value, json};

use super::{Compiler, Rules, SchemaFields, Tools, accepts, compiled, vocabulary};
use crate::grammar::Compiled;

#[test]
fn what_no_grammar_holds_is_refused_by_keyword_and_place() {
    let vocabulary = vocabulary();
    for (schema, why) in [
        (
            json!({"properties": {"a/b": {"type": "array", "items": {"type": "object"}, "uniqueItems": true}}}),
            "`json_schema`: `uniqueItems` at #/properties/a~1b/uniqueItems cannot be enforced",
        ),
        (
            json!({"$defs": {"x": {"pattern": "(?<=a)b"}}, "items": {"$ref": "#/$defs/x"}}),
            "`json_schema`: `pattern` at #/$defs/x/pattern cannot be enforced: ",
        ),
        (
            json!({"anyOf": [{}, {"oneOf": [{"type": "integer"}, {"type": "number"}]}]}),
            "`json_schema`: `oneOf` at #/anyOf/1/oneOf cannot be enforced: more than one",
        ),
        (
            json!({"not": {"properties": {"a": {"multipleOf": 3}}}}),
            "`json_schema`: `not` at #/not cannot be enforced",
        ),
        (
            json!({"$ref": "http://example.com/x"}),
            "`json_schema`: `$ref` at #/$ref cannot be enforced: ",
        ),
        (
            json!({"enum": [9_007_199_254_740_993_u64]}),
            "`json_schema`: `enum` at #/enum cannot be enforced: ",
        ),
        (
            json!({"type": "string", "pattern": "("}),
            "`json_schema`: `pattern` at #/pattern cannot be enforced: regex",
        ),
    ] {
        let e = compiled(&vocabulary, &schema).map(|_| ()).expect_err(&schema.to_string());
        assert!(e.starts_with(why) && !e.contains('\n'), "{schema}: {e}");
    }
}

#[test]
fn tools_that_are_not_strict_leave_what_no_grammar_holds_to_the_model() {
    let vocabulary = vocabulary();
    let unique = json!({"type": "object", "required": ["a"], "additionalProperties": false, "properties": {
        "a": {"type": "array", "items": {"type": "string"}, "uniqueItems": true}}});
    let tool = |name: &str, strict: bool, parameters: &Value| {
        json!({"type": "function",
            "function": {"name": name, "strict": strict, "parameters": parameters}})
    };
    let fields = SchemaFields::default();
    let compile = |tools: &[Value]| {
        Compiler::new(&vocabulary, &|| false)
            .compile(&Rules::Call(tools.to_vec()), &Tools { tools, all: tools, fields: &fields })
    };
    let one =
        json!({"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]});
    // A grammar cannot tell which of two patterns a name belongs to.
    let overlapping =
        json!({"type": "object", "patternProperties": {"^a": true, "b$": {"type": "integer"}}});
    let tools = [tool("f", false, &unique), tool("g", true, &one), tool("h", false, &overlapping)];
    let Compiled { matcher, unheld } = compile(&tools).unwrap();
    assert_eq!(unheld.len(), 2, "{unheld:?}");
    let first = "`uniqueItems` at #/properties/a/uniqueItems in `tools[0].function.parameters`";
    assert_eq!(unheld[0], first);
    assert!(unheld[1].starts_with("`tools[2].function.parameters`: "), "{unheld:?}");
    for (call, allowed) in [
        (json!({"name": "f", "arguments": {"a": ["x", "x"]}}), true),
        (json!({"name": "f", "arguments": {"a": [1]}}), false),
        (json!({"name": "g", "arguments": {"b": 1}}), true),
        (json!({"name": "g", "arguments": {"b": "x"}}), false),
        (json!({"name": "h", "arguments": {"c": "x"}}), true),
    ] {
        assert_eq!(accepts(&matcher, &call.to_string()), allowed, "{call}");
    }
    let e = compile(&[tool("g", true, &one), tool("f", true, &unique)]).map(|_| ()).unwrap_err();
    let why = "`tools[1].function.parameters`: `uniqueItems` at #/properties/a/uniqueItems";
    assert!(e.message.starts_with(why), "{e}");
    let e = compile(&[tool("h", true, &overlapping)]).map(|_| ()).unwrap_err();
    assert!(e.message.starts_with("`tools[0].function.parameters`: "), "{e}");
}
