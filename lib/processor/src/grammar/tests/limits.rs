//! Rules that take too much: they are refused, or end their answer, and leave nothing behind.

use std::time::{Duration, Instant};

use llguidance::toktrie::{TokRxInfo, TokTrie};
use mlxk_core::Kind;
use serde_json::{Map, Value, json};

use super::{Compiler, Rules, SchemaFields, Tools, Vocabulary};
use crate::grammar::Compiled;
use crate::grammar::fault::broken;

/// Vocabulary of bytes and of all words of one to three letters among the first sixteen.
fn words() -> Vocabulary {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    for n in 0..16_usize.pow(3) {
        let letters = [n % 16, n / 16 % 16, n / 256].map(|letter| b'a' + letter as u8);
        words.extend([letters[..2].to_vec(), letters.to_vec()]);
    }
    words.sort();
    words.dedup();
    words.push(b"<end>".to_vec());
    let info = TokRxInfo::new(words.len() as u32, words.len() as u32 - 1);
    Vocabulary::of(TokTrie::from(&info, &words)).unwrap()
}

/// Compiles rules without tools.
fn compile(vocabulary: &Vocabulary, rules: &Rules) -> mlxk_core::Result<Compiled> {
    let fields = SchemaFields::default();
    let tools = Tools { tools: &[], all: &[], fields: &fields };
    Compiler::new(vocabulary, &|| false).compile(rules, &tools)
}

#[test]
fn a_grammar_that_takes_too_long_to_follow_ends_its_answer() {
    let vocabulary = words();
    for text in [
        "start: e\ne: e e | /[a-z]/ | /[a-z]/ e /[a-z]/",
        "start: s\ns: \"a\" s \"a\" | \"b\" s \"b\" | /[ab]/ | s s",
        "start: ((((\"a\"?){30}){30}){30}){30}",
        "start: a{1,50}\na: b{1,50}\nb: c{1,50}\nc: /[a-z]{0,20}/",
    ] {
        let compiled = compile(&vocabulary, &Rules::Grammar(text.to_owned()));
        let mut followed = compiled.map_err(|e| e.message).map(|compiled| compiled.matcher);
        let mut longest = Duration::ZERO;
        for _ in 0..500 {
            let Ok(matcher) = &mut followed else { break };
            let start = Instant::now();
            let step = matcher.compute_mask_or_eos().and_then(|_| {
                let a = vocabulary.tokenize("a");
                matcher.try_consume_tokens(&a)
            });
            longest = longest.max(start.elapsed());
            if let Err(e) = step {
                followed = Err(broken(&e).message);
            }
        }
        let e = followed.map(|_| ()).expect_err(text);
        assert!(e.contains("too many ways to go on") && !e.contains('\n'), "{e}: {text}");
        assert!(longest < Duration::from_secs(2), "{longest:?}: {text}");
    }
}

#[test]
fn a_grammar_that_no_answer_can_follow_is_refused_before_it_begins() {
    let vocabulary = words();
    let each = |n: usize, text: &dyn Fn(usize) -> String| -> String { (0..n).map(text).collect() };
    let properties = |n: usize| -> Value {
        let each = (0..n).map(|n| (format!("p{n}"), json!({"type": "string"})));
        json!({"type": "object", "properties": Value::Object(each.collect())})
    };
    let either = (0..100).map(|_| properties(40)).collect::<Vec<_>>();
    let grammar = |text: String| Rules::Grammar(text);
    for (rules, why) in [
        (grammar(format!("start: {}", each(3000, &|n| format!("\"w{n}\"? ")))), "too many ways"),
        (
            grammar(format!("start: \"a\" | {}\"b\"", each(3000, &|n| format!("\"w{n}\" | ")))),
            "too many ways",
        ),
        (
            grammar("start: p::0\np::_: \"a\"? p::set_bit(0) %if bit_clear(0) | \"\"".to_owned()),
            "rules with parameters",
        ),
        (
            grammar(format!("start:{}", each(3000, &|n| format!(" \"a{n}\"{{0,1000}}")))),
            "too large",
        ),
        (Rules::Schema(properties(600)), "too many ways"),
        (Rules::Schema(properties(10_000)), "optional properties in one object"),
        (Rules::Schema(json!({"anyOf": either})), "too many ways"),
    ] {
        let e = compile(&vocabulary, &rules).map(|_| ()).expect_err(why);
        assert!(e.kind == Kind::Validation && e.message.contains(why), "{e}: {why}");
    }
}

#[test]
fn work_on_rules_ends_when_nobody_waits_for_it() {
    let vocabulary = words();
    let pattern =
        |n: usize| json!({"type": "string", "pattern": format!("^(\\p{{L}}|\\d){{0,{n}}}$")});
    let each = |n: usize| (format!("p{n}"), json!({"not": pattern(n % 20 + 1)}));
    let schema =
        json!({"type": "object", "properties": Value::Object((0..90).map(each).collect())});
    let tool = |name: String| {
        json!({"type": "function",
        "function": {"name": name, "parameters": schema}})
    };
    let tools: Vec<Value> = (0..30).map(|n| tool(format!("f{n}"))).collect();
    let fields = SchemaFields::default();
    let tools = Tools { tools: &tools, all: &tools, fields: &fields };
    let start = Instant::now();
    let gone = || start.elapsed() > Duration::from_millis(30);
    let ended =
        Compiler::new(&vocabulary, &gone).compile(&Rules::Call(tools.tools.to_vec()), &tools);
    assert_eq!(ended.map(|_| ()).unwrap_err().kind, Kind::Execution);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

/// Schemas that are nested deep, wide, or refer to each other in chains, circles and trees.
fn hostile() -> Vec<(&'static str, Value)> {
    let nested = |depth: usize, by: &dyn Fn(Value) -> Value| {
        (0..depth).fold(json!({"type": "string"}), |inner, _| by(inner))
    };
    let each =
        |count: usize, of: &dyn Fn(usize) -> Value| -> Vec<Value> { (0..count).map(of).collect() };
    let chain = |count: usize, of: &dyn Fn(Value) -> Value, last: Value| {
        let link = |n: usize| of(json!({"$ref": format!("#/$defs/d{}", n + 1)}));
        let mut all: Map<String, Value> = (0..count).map(|n| (format!("d{n}"), link(n))).collect();
        all.insert(format!("d{count}"), last);
        json!({"$ref": "#/$defs/d0", "$defs": all})
    };
    let text = || json!({"type": "string"});
    let first = || json!({"$ref": "#/$defs/d0"});
    let pair = |one: Value| json!({"allOf": [one, one]});
    let either = |one: Value| json!({"anyOf": [one, {"properties": {"a": one}}, {"properties": {"b": one}}]});
    vec![
        ("nested objects", nested(120, &|inner| json!({"properties": {"a": inner}}))),
        ("nested lists", nested(120, &|inner| json!({"items": inner}))),
        ("nested allOf", nested(120, &|inner| json!({"allOf": [inner, {"minLength": 1}]}))),
        ("nested not", nested(120, &|inner| json!({"not": inner}))),
        ("nested if", nested(100, &|inner| json!({"if": inner, "then": {"minLength": 1}}))),
        ("nested oneOf", nested(110, &|inner| json!({"oneOf": [inner, {"type": "integer"}]}))),
        ("wide anyOf", json!({"anyOf": each(30_000, &|n| json!({"const": n}))})),
        (
            "wide oneOf",
            json!({"oneOf": each(3_000, &|n| json!({"properties": {"a": {"const": n}}}))}),
        ),
        ("wide allOf", json!({"allOf": each(5_000, &|n| json!({"minLength": n % 7}))})),
        ("wide items", json!({"prefixItems": each(20_000, &|_| text())})),
        (
            "many patterns",
            json!({"allOf": each(2_000, &|n| json!({"pattern": format!("a{{{n}}}")}))}),
        ),
        ("many nots", json!({"allOf": each(2_000, &|n| json!({"not": {"const": n.to_string()}}))})),
        ("a chain", chain(20_000, &|next| next, text())),
        ("a chain of lists", chain(1_900, &|next| json!({"items": next}), text())),
        ("a circle", chain(50, &|next| next, first())),
        ("a circle of allOf", chain(50, &|next| json!({"allOf": [next]}), first())),
        ("a circle of objects", chain(500, &|next| json!({"properties": {"a": next}}), first())),
        ("itself", json!({"$ref": "#"})),
        ("itself in not", json!({"not": {"$ref": "#"}})),
        ("itself in allOf", json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]})),
        ("a tree of allOf", chain(40, &pair, text())),
        ("a tree of anyOf", chain(40, &either, text())),
        ("a tree of oneOf", chain(40, &|one| json!({"oneOf": [one, {"items": one}]}), text())),
        ("a tree of not", chain(40, &|one| json!({"not": {"allOf": [one, {"not": one}]}}), text())),
        ("a tree of if", chain(40, &|one| json!({"if": one, "then": one, "else": one}), text())),
    ]
}

#[test]
fn hostile_schemas_are_compiled_or_refused_in_a_line_soon() {
    let vocabulary = super::vocabulary();
    for (what, schema) in hostile() {
        let start = Instant::now();
        if let Err(e) = compile(&vocabulary, &Rules::Schema(schema)) {
            assert_eq!(e.kind, Kind::Validation, "{what}: {e}");
            let line = e.message.starts_with("`json_schema`: ") && !e.message.contains('\n');
            assert!(line && e.message.len() < 400, "{what}: {e}");
        }
        // A release takes a second at most.
        assert!(start.elapsed() < Duration::from_secs(15), "{what}: {:?}", start.elapsed());
    }
}
