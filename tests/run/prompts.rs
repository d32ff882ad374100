//! What the model is given, and the parts of what it gives: templates, reasoning, calls.

use serde_json::{Value, json};

use super::tiny::{Tiny, read};

/// What a template sees is in the words with which it refuses.
const TELLS: &str = "{{ raise_exception([messages, tools, mood|default(0)] | tojson) }}";

/// What the template was given.
fn given(tiny: &Tiny, args: &[&str]) -> Value {
    let ended = tiny.run(args).end();
    let stderr = ended.stderr();
    let (_, told) =
        stderr.split_once("the chat template refuses: ").unwrap_or_else(|| panic!("{stderr}"));
    serde_json::from_str(told.lines().next().unwrap()).unwrap()
}

#[test]
fn a_system_prompt_and_variables_reach_the_template_unless_there_is_none() {
    let tiny = Tiny::new();
    tiny.template(TELLS);
    let system = json!({"role": "system", "content": "Be brief."});
    let user = json!({"role": "user", "content": "Hi you"});
    assert_eq!(given(&tiny, &["Hi", "you"]), json!([[user], null, 0]));
    let args = ["--system", "Be brief.", "--template-var", "mood=good", "Hi you"];
    assert_eq!(given(&tiny, &args), json!([[system, user], null, "good"]));
    assert_eq!(given(&tiny, &["--template-var", "mood=[1]", "Hi you"]), json!([[user], null, [1]]));
    let raw = tiny.run(&["--no-chat-template", "--max-tokens", "2", &tiny.prompt]);
    assert_eq!(raw.ok(), format!("{}\n", tiny.words(2)));
    let both = tiny.run(&["--no-chat-template", "--system", "a", "w1"]).end();
    assert_eq!(both.status(), 2, "{both:?}");
}

#[test]
fn messages_tools_and_variables_of_a_request_reach_the_template() {
    let tiny = Tiny::new();
    tiny.template(TELLS);
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let request = json!({"messages": messages, "tools": [{"name": "f"}],
        "chat_template_kwargs": {"mood": 1}});
    let ended = tiny.free(&["--ndjson", "-"]).stdin(request.to_string()).end();
    let (_, told) =
        ended.stderr().split_once("refuses: ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let told: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    assert_eq!(told, json!([messages, [{"name": "f"}], 1]));
}

#[test]
fn pictures_and_sound_are_refused_and_the_rest_is_answered() {
    let tiny = Tiny::new();
    let picture =
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}]);
    let lines = [
        json!({"prompt": "w1", "images": ["a.png"]}),
        json!({"prompt": "w1", "audio": "a.wav"}),
        json!({"messages": picture}),
        json!({"prompt": "w1", "max_tokens": 1}),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let ended = tiny.free(&["--ndjson", "-"]).stdin(input).end();
    assert_eq!((ended.status(), ended.stdout().lines().count()), (1, 1));
    let stderr = ended.stderr();
    let complaints: Vec<&str> = stderr.lines().collect();
    assert_eq!(
        complaints,
        [
            "mlxk-run: standard input, line 1: `images`: only text is taken",
            "mlxk-run: standard input, line 2: `audio`: only text is taken",
            "mlxk-run: standard input, line 3: `messages[0].content[0]`: a part of type \
             `image_url`: only text is taken",
        ]
    );
}

/// Gives back the last message, and knows of reasoning and calls.
const MARKED: &str = "{{ messages[-1].content }}{# <think> <tool_call> {{ tools }} #}";

#[test]
fn reasoning_is_shown_hidden_or_alone_and_has_a_field_in_records() {
    let tiny = Tiny::new();
    tiny.template(MARKED);
    tiny.says(&["<think>", "Hm", ".", "</think>", "Yes", "!"]);
    let answer = |args: &[&str]| tiny.run(args).args([&tiny.prompt]).ok();
    assert_eq!(answer(&[]), "Yes!\n", "a pipe gets the answer");
    assert_eq!(answer(&["--reasoning", "hide"]), answer(&["--no-reasoning"]));
    assert_eq!(answer(&["--reasoning", "only"]), "Hm.\n");
    let shown = "[Reasoning]\nHm.\n\n[Answer]\nYes!\n";
    assert_eq!(answer(&["--reasoning", "show"]), shown);
    assert_eq!(answer(&["--reasoning", "show", "--no-stream"]), shown);
    let record = &tiny.run(&["--ndjson", &tiny.prompt]).records()[0];
    assert_eq!((&record["reasoning"], &record["response"]), (&json!("Hm."), &json!("Yes!")));
    assert_eq!(answer(&["--stop", "es"]), "Y\n", "stop strings are for the answer");
}

#[test]
fn a_call_becomes_a_field_of_the_record_and_a_line_of_text() {
    let tiny = Tiny::new();
    tiny.template(MARKED);
    tiny.says(&[
        "<tool_call>",
        "{\"name\": \"f\",",
        " \"arguments\": ",
        "{\"a\": 1}}",
        "</tool_call>",
    ]);
    let request = json!({"messages": [{"role": "user", "content": tiny.prompt}], "temperature": 0,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]});
    let record = &tiny.requests(&[], std::slice::from_ref(&request))[0];
    assert_eq!((&record["response"], &record["finish_reason"]), (&json!(""), &json!("tool_calls")));
    let call = &record["tool_calls"][0];
    assert_eq!(call["function"], json!({"name": "f", "arguments": {"a": 1}}));
    assert!(call["type"] == "function" && call["id"].is_string(), "{call}");
    // Where none is to be called, a mark that is a token cannot come.
    let mut tokenizer = read(&tiny.path("tokenizer.json"));
    let mark = json!({"id": tokenizer["model"]["vocab"]["<tool_call>"], "content": "<tool_call>",
        "special": false, "lstrip": false, "rstrip": false, "normalized": false,
        "single_word": false});
    tokenizer["added_tokens"].as_array_mut().unwrap().push(mark);
    tiny.file("tokenizer.json", &tokenizer);
    let mut request = request;
    let record = &tiny.requests(&[], std::slice::from_ref(&request))[0];
    assert_eq!(record["finish_reason"], "tool_calls");
    request["tool_choice"] = "none".into();
    request["max_tokens"] = 8.into();
    let record = &tiny.requests(&[], &[request])[0];
    let said = record["response"].as_str().unwrap();
    assert!(record.get("tool_calls").is_none() && !said.contains("<tool_call>"), "{record}");
}
