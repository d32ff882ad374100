//! Rules that take too much: they are refused, or end their answer, and leave nothing behind.

use std::time::{Duration, Instant};

use llguidance::toktrie::{TokRxInfo, TokTrie};
use mlxk_core::Kind;
use serde_json::{Value, json};

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
