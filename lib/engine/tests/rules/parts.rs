//! Stop strings and likelihoods: both are for the text of an answer.

use serde_json::json;

use crate::wishful::{HARMONY, ask, ask_with, tools};

#[test]
fn stop_strings_end_the_text_and_not_what_is_thought() {
    let thinks = ["<think>", "a", "b", "</think>", "1", "a", "b", "</s>"];
    for stop in ["ab", "think"] {
        let told = ask("", &thinks, json!({"stop": stop})).unwrap();
        assert_eq!(told.reasoning, "ab");
        assert_eq!(told.text, if stop == "ab" { "1" } else { "1ab" });
    }
    let call =
        ["a", "<tool_call>", "{", "\"", "b", "\"", ":", "{", "}", "}", "</tool_call>", "</s>"];
    let told = ask("", &call, json!({"tools": [{"name": "b"}], "stop": ["ab", "b"]})).unwrap();
    assert_eq!((told.text.as_str(), told.calls.len()), ("a", 1));
}

#[test]
fn likelihoods_are_told_of_the_tokens_of_the_text() {
    let thinks = ["<think>", "a", "</think>", "b", "1", "</s>"];
    let told = ask("", &thinks, json!({})).unwrap();
    assert_eq!((told.text.as_str(), told.likely.as_str()), ("b1", "b1"));
    let told = ask("<think>", &thinks[1..], json!({})).unwrap();
    assert_eq!((told.reasoning.as_str(), told.likely.as_str()), ("a", "b1"));
    let calls =
        ["b", "<tool_call>", "{", "\"", "a", "\"", ":", "{", "}", "}", "</tool_call>", "</s>"];
    let told = ask("", &calls, json!({"tools": tools()})).unwrap();
    assert_eq!((told.calls.len(), told.likely.as_str()), (1, "b"));
    let stops = ["a", "1", "b", "1", "b", "1", "</s>"];
    let told = ask("", &stops, json!({"stop": "1b1"})).unwrap();
    assert_eq!((told.text.as_str(), told.likely.as_str()), ("a", "a"));
    let told = ask("", &stops, json!({"stop": "b1x"})).unwrap();
    assert_eq!((told.text.as_str(), told.likely.as_str()), ("a1b1b1", "a1b1b1"));
    let harmony =
        |wishes: &[&str]| ask_with(&HARMONY, "<|start|>assistant", wishes, json!({})).unwrap();
    let text =
        ["<|start|>", "assistant", "<|channel|>", "final", "<|message|>", "b", "1", "<|call|>"];
    let thought = ["<|channel|>", "analysis", "<|message|>", "x", "<|end|>"];
    let told = harmony(&[&thought[..], &text].concat());
    assert_eq!((told.text.as_str(), told.likely.as_str()), ("b1", "b1"));
}
