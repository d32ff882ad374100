//! Rules for answers in OpenAI's harmony.

use mlxk_core::Kind;
use mlxk_processor::event::FinishReason;
use serde_json::{Value, json};

use crate::wishful::{HARMONY, ask_with, called, thinking, tools};

#[test]
fn in_harmony_the_rules_are_for_the_final_part_and_for_calls() {
    let function = json!({"name": "a", "parameters": {"properties": {"b": {"const": 1}}, "required": ["b"],
        "additionalProperties": false}});
    let ask = |wishes: &[&str], rules: Value| {
        let mut rules = rules;
        rules["tools"] = json!([function]);
        ask_with(&HARMONY, "<|start|>assistant", wishes, rules).unwrap()
    };
    let schema = || json!({"json_schema": {"type": "object"}});
    let told = ask(&thinking(&["final", "<|message|>", "b", "<|call|>"]), schema());
    assert_eq!((told.reasoning.as_str(), told.text.as_str(), told.reason), ("b}", "{}", "stop"));
    let call = ["Ġto=functions.a", "<|message|>", "{", "}", "<|call|>"];
    for header in [&call[..], &[&["<|channel|>", "commentary"], &call[..]].concat()] {
        let told = ask(header, schema());
        assert_eq!(called(&told), [(json!("a"), json!({"b": 1}))]);
        assert_eq!((told.text.as_str(), told.reason), ("", FinishReason::ToolCalls.name()));
    }
    let none = json!({"json_schema": {"const": 1}, "tool_choice": "none"});
    let told = ask(&thinking(&["commentary", "<|message|>", "b"]), none);
    assert_eq!((told.text.as_str(), told.reason), ("1", "stop"));
}

#[test]
fn in_harmony_a_call_that_is_demanded_is_one() {
    let one = json!({"type": "object", "properties": {"b": {"const": 1}}, "required": ["b"],
        "additionalProperties": false});
    let tools = json!([{"name": "b"}, {"name": "a", "parameters": one}]);
    for choice in [json!("required"), json!({"function": {"name": "a"}})] {
        let request = json!({"tools": tools, "tool_choice": choice, "json_schema": {"const": 1}});
        for wishes in [&["final", "<|message|>", "b"][..], &["commentary", "Ġto=functions.a", "b"]]
        {
            let wishes = thinking(wishes);
            let told = ask_with(&HARMONY, "<|start|>assistant", &wishes, request.clone()).unwrap();
            assert_eq!((told.reasoning.as_str(), told.text.as_str()), ("b}", ""));
            assert_eq!(called(&told), [(json!("a"), json!({"b": 1}))]);
            assert_eq!(told.reason, FinishReason::ToolCalls.name());
        }
    }
}

#[test]
fn in_harmony_the_rules_hold_whatever_the_prompt_has_begun() {
    let ask = |end: &str, wishes: &[&str], mut request: Value| {
        request["json_schema"] = json!({"const": 1});
        ask_with(&HARMONY, end, wishes, request)
    };
    let none = || json!({});
    let whole = ["<|start|>", "assistant", "<|channel|>", "final", "<|message|>", "b"];
    assert_eq!(ask("", &whole, none()).unwrap().text, "1");
    let thought = "<|start|>assistant<|channel|>analysis<|message|>x";
    let told = ask(thought, &[&["b", "<|end|>"], &whole[..]].concat(), none()).unwrap();
    assert_eq!((told.reasoning.as_str(), told.text.as_str()), ("b", "1"));
    let text = "<|start|>assistant<|channel|>final<|message|>";
    assert_eq!(ask(text, &["b"], none()).unwrap().text, "1");
    let demanded = json!({"tools": tools(), "tool_choice": "required"});
    let e = ask(text, &[], demanded).unwrap_err();
    assert_eq!(
        (e.kind, e.message.starts_with("the prompt begins an answer")),
        (Kind::Validation, true)
    );
}
