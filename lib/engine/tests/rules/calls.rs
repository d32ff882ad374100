//! Calls: those that are demanded, allowed or barred, and the schemas that they follow.

use mlxk_core::Kind;
use mlxk_processor::event::FinishReason;
use serde_json::{Value, json};

use crate::wishful::{
    HARMONY, SPELLED, SPELLED_CALL, TOKENS, UNTOLD, ask, ask_with, called, thinking, tools,
};

#[test]
fn a_strict_function_is_called_as_its_schema_has_it_and_the_text_is_free() {
    let one = json!({"type": "object", "properties": {"b": {"const": 1}}, "required": ["b"],
        "additionalProperties": false});
    let request =
        |strict: bool| json!({"tools": [{"name": "a", "strict": strict, "parameters": one}]});
    let harmony = |wishes: &[&str], strict| {
        ask_with(&HARMONY, "<|start|>assistant", wishes, request(strict)).unwrap()
    };
    let call = ["Ġto=functions.a", "<|message|>", "{", "}", "<|call|>"];
    let preamble =
        ["<|channel|>", "commentary", "<|message|>", "x", "<|end|>", "<|start|>", "assistant"];
    let wishes = [&preamble[..], &call].concat();
    let told = harmony(&wishes, true);
    assert_eq!((told.text.as_str(), called(&told)), ("x", vec![(json!("a"), json!({"b": 1}))]));
    assert_eq!(called(&harmony(&wishes, false)), [(json!("a"), json!({}))]);
    assert_eq!(harmony(&thinking(&["final", "<|message|>", "b", "<|call|>"]), true).text, "b");
    let spelled = |wishes: &[&str], strict| {
        ask_with(&SPELLED, "{# {\"name\": \"arguments\"} #}", wishes, request(strict)).unwrap()
    };
    let mut call = [&["a"], &SPELLED_CALL[..]].concat();
    call[22] = "a";
    let told = spelled(&call, true);
    assert_eq!((told.text.as_str(), called(&told)), ("a", vec![(json!("a"), json!({"b": 1}))]));
    assert_eq!(called(&spelled(&call, false)), []);
    assert_eq!(spelled(&["a", "<", "b", "</s>"], true).text, "a<b");
}

#[test]
fn with_tools_an_answer_calls_one_or_follows_its_schema() {
    let rules = || json!({"json_schema": {"const": 1}, "tools": tools()});
    let call =
        ["<tool_call>", "{", "\"", "a", "\"", ":", "{", "}", "}", "</tool_call>", "b", "</s>"];
    let told = ask("", &call, rules()).unwrap();
    assert_eq!(called(&told), [(json!("a"), json!({}))]);
    // Behind a call the model says what it likes.
    assert_eq!((told.text.as_str(), told.reason), ("b", FinishReason::ToolCalls.name()));
    let thought = [&["<think>", "b", "</think>"][..], &call].concat();
    let told = ask("", &thought, rules()).unwrap();
    assert_eq!((told.reasoning.as_str(), told.calls.len()), ("b", 1));
    let told = ask("", &["b", "<tool_call>"], rules()).unwrap();
    assert_eq!((told.text.as_str(), told.reason), ("1", "stop"));
    let mut none = rules();
    none["tool_choice"] = "none".into();
    for request in [none, json!({"json_schema": {"const": 1}})] {
        let told = ask("", &["<tool_call>"], request).unwrap();
        assert_eq!((told.text.as_str(), told.reason), ("1", "stop"));
    }
    let grammar = json!({"grammar": "start: \"a\" \"b\"", "tools": tools()});
    assert_eq!(ask("", &call, grammar.clone()).unwrap().calls.len(), 1);
    assert_eq!(ask("", &["a", "<tool_call>"], grammar).unwrap().text, "ab");
}

#[test]
fn a_mark_of_several_tokens_opens_a_call_or_is_none() {
    let rules = || json!({"json_schema": {"const": 1}, "tools": tools()});
    let ask = |wishes: &[&str], rules| ask_with(&SPELLED, "", wishes, rules).unwrap();
    let open = ["<", "tool_", "call>"];
    let call = ["{", "\"", "a", "\"", ":", "{", "}", "}", "</", "tool_", "call>", "</s>"];
    let told = ask(&[&open[..], &call].concat(), rules());
    assert_eq!(called(&told), [(json!("a"), json!({}))]);
    assert_eq!((told.text.as_str(), told.reason), ("", FinishReason::ToolCalls.name()));
    // What has begun to be a mark becomes one.
    let told = ask(&[&["<", "b", "b"][..], &call].concat(), rules());
    assert_eq!(told.calls.len(), 1);
    let told = ask(&open, json!({"json_schema": {"const": 1}}));
    assert_eq!(told.text, "1");
    // What may also be the answer is followed as such.
    let grammar = json!({"grammar": "start: \"<\" (\"a\" | \"tool_\") \"1\"", "tools": tools()});
    assert_eq!(ask(&["<", "a", "b"], grammar.clone()).text, "<a1");
    assert_eq!(ask(&["<", "tool_", "1"], grammar.clone()).text, "<tool_1");
    assert_eq!(ask(&[&open[..], &call].concat(), grammar).calls.len(), 1);
}

#[test]
fn a_call_in_json_follows_the_schema_of_its_function() {
    let template = "{# {\"name\": \"arguments\"} #}";
    let mut tools = tools();
    tools[0]["function"]["parameters"] = json!({"type": "object", "required": ["b"],
        "properties": {"b": {"const": 1}}, "additionalProperties": false});
    let request = || json!({"json_schema": {"const": 1}, "tools": tools});
    let ask = |wishes: &[&str]| ask_with(&SPELLED, template, wishes, request()).unwrap();
    let call = "<tool_call>{\"name\":\"a\",\"arguments\":{\"b\":1}}</tool_call></s>";
    assert_eq!(SPELLED_CALL.concat(), call);
    let twice = [&SPELLED_CALL[..27], &SPELLED_CALL].concat();
    assert_eq!(ask(&twice).calls.len(), 2);
    // The model would go on with a list, with a function that there is not, and with a wrong value.
    let mut wishes = SPELLED_CALL;
    (wishes[3], wishes[9], wishes[21]) = ("[", "b", "a");
    let told = ask(&wishes);
    assert_eq!(called(&told), [(json!("a"), json!({"b": 1}))]);
    assert_eq!((told.text.as_str(), told.reason), ("", FinishReason::ToolCalls.name()));
    let told = ask(&["["]);
    assert_eq!((told.text.as_str(), told.calls.len()), ("1", 0));
}

#[test]
fn a_mark_that_is_a_special_token_opens_a_call() {
    let tokens = TOKENS.map(|token| if token == "<tool_call>" { "[TOOL_CALLS]" } else { token });
    let schema = json!({"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 1});
    let request = || json!({"json_schema": schema, "tools": tools()});
    let ask = |wishes: &[&str]| ask_with(&tokens, "{# [TOOL_CALLS] #}", wishes, request()).unwrap();
    let told = ask(&["[TOOL_CALLS]", "[", "{", "\"", "a", "\"", ":", "{", "}", "}", "]", "</s>"]);
    assert_eq!(called(&told), [(json!("a"), json!({}))]);
    assert_eq!((told.text.as_str(), told.reason), ("", FinishReason::ToolCalls.name()));
    // What begins like it is the answer.
    let told = ask(&["[", "1", "]"]);
    assert_eq!((told.text.as_str(), told.reason), ("[1]", "stop"));
}

#[test]
fn a_call_without_a_mark_follows_the_schema_of_its_function() {
    let schema = json!({"type": "object", "properties": {"b": {"const": 1}}, "required": ["b"],
        "additionalProperties": false});
    let mut tools = tools();
    tools[0]["function"]["parameters"] = json!({"type": "object", "required": ["b"],
        "properties": {"b": {"$ref": "#/$defs/one"}}, "additionalProperties": false,
        "$defs": {"one": {"const": 1}}});
    let ask = |wishes: &[&str], tools: &Value, schema: &Value| {
        let request = json!({"tools": tools, "json_schema": schema});
        ask_with(&SPELLED, "{# <|python_tag|> #}", wishes, request).unwrap()
    };
    let call = ["{", "\"", "name", "\"", ":", "\"", "b", "\"", ",", "\"", "parameters"];
    let told = ask(&call, &tools, &schema);
    assert_eq!(called(&told), [(json!("a"), json!({"b": 1}))]);
    assert_eq!((told.text.as_str(), told.reason), ("", FinishReason::ToolCalls.name()));
    let told = ask(&["{", "\"", "b", "\"", ":", "b"], &tools, &schema);
    assert_eq!((told.text.as_str(), told.calls.len()), ("{\"b\":1}", 0));
    // A name alone makes no call.
    let named = json!({"type": "object", "properties": {"name": {"const": "b"}},
        "required": ["name"], "additionalProperties": false});
    let told = ask(&call, &tools, &named);
    assert_eq!((told.text.as_str(), told.reason), ("{\"name\":\"b\"}", "stop"));
}

#[test]
fn a_call_that_is_demanded_is_one_whatever_else_is_asked() {
    let mut tools = tools();
    tools[0]["function"]["parameters"] = json!({"type": "object", "required": ["b"],
        "properties": {"b": {"$ref": "#/$defs/one"}}, "additionalProperties": false,
        "$defs": {"one": {"const": 1}}});
    let named = json!({"type": "function", "function": {"name": "a"}});
    for choice in [json!("required"), named] {
        for end in ["", "{# <|python_tag|> #}"] {
            let request =
                json!({"tools": tools, "tool_choice": choice, "json_schema": {"const": 1}});
            let told = ask_with(&SPELLED, end, &["<", "1", "b"], request).unwrap();
            assert_eq!(called(&told), [(json!("a"), json!({"b": 1}))]);
            assert_eq!((told.text.as_str(), told.reason), ("", FinishReason::ToolCalls.name()));
        }
    }
    // What was cut is no call.
    let request = json!({"tools": tools, "tool_choice": "required", "max_tokens": 3});
    let told = ask_with(&SPELLED, "", &[], request).unwrap();
    assert_eq!((told.text.as_str(), told.reason), ("", "length"));
}

#[test]
fn a_call_ends_an_answer_for_its_own_reason() {
    let wishes = ["<tool_call>", "{", "\"", "a", "\"", ":", "{", "}", "}", "</tool_call>", "</s>"];
    let told = ask("", &wishes, json!({"tools": [{"name": "a"}]})).unwrap();
    assert_eq!((told.text.as_str(), told.reason), ("", FinishReason::ToolCalls.name()));
    let call = &told.calls[0];
    assert_eq!((&call["function"]["name"], &call["type"]), (&json!("a"), &json!("function")));
    assert_eq!(call["id"].as_str().unwrap().len(), 9);
}

#[test]
fn where_no_function_may_be_called_none_is() {
    let call = ["<tool_call>", "{", "\"", "a", "\"", ":", "{", "}", "}", "</tool_call>", "</s>"];
    let told = ask("", &call, json!({"tools": tools(), "tool_choice": "none"})).unwrap();
    assert_eq!((told.text.as_str(), told.calls.len()), ("}{\"a\":{}}</tool_call>", 0));
    let call = ["Ġto=functions.a", "<|message|>", "{", "}", "<|call|>"];
    let preamble = ["<|channel|>", "final", "<|message|>", "b", "<|call|>"];
    for wishes in [&call[..], &preamble] {
        let none = json!({"tools": tools(), "tool_choice": "none", "max_tokens": 9});
        let told = ask_with(&HARMONY, "<|start|>assistant", wishes, none).unwrap();
        assert_eq!(told.calls.len(), 0);
    }
    // Without functions there is nothing to call, and the answer is what the model says.
    let told = ask("", &["<tool_call>", "{", "}", "</tool_call>", "</s>"], json!({})).unwrap();
    assert_eq!((told.text.as_str(), told.reason), ("<tool_call>{}</tool_call>", "stop"));
    let call = ["Ġto=functions.a", "<|message|>", "{", "}", "<|call|>"];
    let told = ask_with(&HARMONY, "<|start|>assistant", &call, json!({})).unwrap();
    assert_eq!((told.text.as_str(), told.reason), ("{}", "stop"));
}

#[test]
fn a_model_that_cannot_be_told_of_functions_is_not_given_any() {
    let request = |choice: &str| json!({"tools": tools(), "tool_choice": choice});
    let e = ask(UNTOLD, &[], request("auto")).unwrap_err();
    assert_eq!((e.kind, e.message.starts_with("`tools`: ")), (Kind::Validation, true), "{e}");
    let lenient = json!({"tools": tools(), "lenient": true});
    assert_eq!(ask(UNTOLD, &["b", "</s>"], lenient).unwrap().text, "b");
    assert_eq!(ask(UNTOLD, &["</s>"], request("none")).unwrap().reason, "stop");
    assert_eq!(ask_with(&SPELLED, UNTOLD, &[], request("required")).unwrap().calls.len(), 1);
}

#[test]
fn calls_of_different_turns_have_different_ids() {
    let id = |prompt: &str, seed: u64| {
        let wishes = ["<tool_call>", "{", "\"", "a", "\"", ":", "{", "}", "}", "</tool_call>"];
        let request = json!({"prompt": prompt, "seed": seed, "tools": tools()});
        ask("", &[&wishes[..], &["</s>"]].concat(), request).unwrap().calls[0]["id"].clone()
    };
    assert_eq!(id("a", 1), id("a", 1));
    assert_ne!(id("a", 1), id("b", 1));
    assert_ne!(id("a", 1), id("a", 2));
}
