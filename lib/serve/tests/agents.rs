//! Bodies as coding agents send them: Claude Code, Codex, opencode and their kind.

use std::sync::{Arc, Mutex};

use mlxk_serve::{App, Log, Settings};
use mlxk_testengine::{Answered, Script, conversation, post, settings, tool_call};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

async fn ask(script: &Script, path: &str, body: &Value) -> Answered {
    post(&App::new(script.clone(), settings()), path, body).await
}

/// A body of the route `path` that says `Hi`, with the fields of `more`.
fn body(path: &str, more: &Value) -> Value {
    let said = json!([{"role": "user", "content": "Hi"}]);
    let mut body = match path {
        RESPONSES => json!({"model": "words", "input": said}),
        MESSAGES => json!({"model": "words", "messages": said, "max_tokens": 9}),
        _ => json!({"model": "words", "messages": said}),
    };
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn omitted(answer: &Answered) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.headers.get("x-mlxk-omitted").map_or("", |types| types.to_str().unwrap())
}

fn names(script: &Script) -> Vec<String> {
    let tools = conversation(&script.last()).tools.unwrap_or_default();
    tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap().to_owned()).collect()
}

/// The first request of Claude Code 2.1, shortened.
#[tokio::test]
async fn the_first_request_of_claude_code_is_answered() {
    let body = json!({
        "model": "words",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>Today.</system-reminder>"},
                {"type": "text", "text": "Fix it", "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "system", "content": [
                {"type": "text", "text": "# Environment", "cache_control": {"type": "ephemeral"}},
            ]},
        ],
        "system": [
            {"type": "text", "text": "An agent."},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        ],
        "tools": [
            {"name": "Read", "description": "Reads.", "input_schema": {"type": "object"}},
            {"name": "Placeholder", "input_schema": {"type": "object"}, "defer_loading": true},
        ],
        "metadata": {"user_id": "{}"},
        "max_tokens": 32000,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": true,
    });
    let script = Script::new();
    let answer = ask(&script, "/v1/messages?beta=true", &body).await;
    assert_eq!(omitted(&answer), "");
    assert_eq!(names(&script), ["Read"]);
    let parts = |texts: &[&str]| -> Value {
        texts.iter().map(|text| json!({"type": "text", "text": text})).collect()
    };
    let expected = json!([
        {"role": "system", "content": "An agent.\nBe brief."},
        {"role": "user",
            "content": parts(&["<system-reminder>Today.</system-reminder>", "Fix it"])},
        {"role": "system", "content": parts(&["# Environment"])},
    ]);
    assert_eq!(Value::from(conversation(&script.last()).messages), expected);
}

/// The first request of Codex 0.171, shortened.
#[tokio::test]
async fn the_first_request_of_codex_is_answered() {
    let function = |name: &str| {
        let parameters = json!({"type": "object"});
        json!({"type": "function", "name": name, "strict": false, "parameters": parameters})
    };
    let said = |role: &str, text: &str| {
        let content = json!([{"type": "input_text", "text": text}]);
        json!({"type": "message", "id": "msg_1", "role": role, "content": content})
    };
    let agents = json!({"type": "namespace", "name": "agents", "description": "Sub-agents.",
        "tools": [function("spawn"), function("wait")]});
    let first = json!({
        "model": "spawns",
        "stream": true,
        "input": [said("developer", "An agent."), said("user", "<cwd>"), said("user", "Hi")],
        "tools": [
            function("exec_command"),
            agents,
            {"type": "web_search", "external_web_access": true},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": true,
        "reasoning": {"summary": "auto"},
        "store": false,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a2",
        "client_metadata": {"turn_id": "01a2"},
        "text": {"verbosity": "low"},
    });
    let script = Script::new().with("spawns", [tool_call("1", "agents__spawn", "{}")]);
    let answer = ask(&script, RESPONSES, &first).await;
    assert_eq!(omitted(&answer), "web_search");
    assert_eq!(names(&script), ["exec_command", "agents__spawn", "agents__wait"]);
    let tools = conversation(&script.last()).tools.unwrap();
    assert_eq!(tools[1]["function"]["description"], "Sub-agents.");
    let done = answer.events().into_iter().find(|event| event["type"] == "response.completed");
    let item = done.unwrap()["response"]["output"][0].clone();
    assert_eq!((&item["namespace"], &item["name"]), (&json!("agents"), &json!("spawn")));
    // What came goes back with the next request.
    let output = json!({"type": "function_call_output", "call_id": "1", "output": "ok"});
    let more = json!({"input": [item, output]});
    ask(&script, RESPONSES, &body(RESPONSES, &more)).await.json();
    let call = conversation(&script.last()).messages[0]["tool_calls"][0].clone();
    assert_eq!(call["function"]["name"], "agents__spawn");
}

#[tokio::test]
async fn tools_that_cannot_run_here_are_left_out_and_named() {
    let function = json!({"type": "function", "function": {"name": "f"}});
    let plain = json!({"name": "f", "input_schema": {"type": "object"}});
    let flat = json!({"type": "function", "name": "f"});
    let cases = [
        (
            MESSAGES,
            &plain,
            vec![
                json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 3}),
                json!({"type": "code_execution_20260120", "name": "code_execution"}),
                json!({"type": "computer_20250124", "name": "computer", "display_width_px": 9}),
                json!({"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}),
                json!({"type": "bash_20250124", "name": "bash"}),
                json!({"type": "memory_20250818", "name": "memory"}),
                json!({"type": "mcp_toolset", "mcp_server_name": "a"}),
                json!({"type": "web_search_20990101", "name": "a"}),
            ],
        ),
        (
            RESPONSES,
            &flat,
            vec![
                json!({"type": "web_search"}),
                json!({"type": "local_shell"}),
                json!({"type": "file_search", "vector_store_ids": ["a"]}),
                json!({"type": "image_generation"}),
                json!({"type": "mcp", "server_label": "a", "server_url": "https://a"}),
                json!({"type": "code_interpreter", "container": {"type": "auto"}}),
                json!({"type": "computer_use_preview"}),
                json!({"type": "tool_search", "execution": "client"}),
            ],
        ),
        (
            CHAT,
            &function,
            vec![
                json!({"type": "web_search"}),
                json!({"type": "builtin_function", "function": {"name": "$web_search"}}),
            ],
        ),
    ];
    for (path, function, others) in cases {
        for other in others {
            let (script, kind) = (Script::new(), other["type"].as_str().unwrap());
            for stream in [false, true] {
                let more = json!({"tools": [other, function], "stream": stream});
                let answer = ask(&script, path, &body(path, &more)).await;
                assert_eq!(omitted(&answer), kind);
                assert_eq!(names(&script), ["f"], "{kind}");
            }
            // Alone it leaves no tool.
            let answer = ask(&script, path, &body(path, &json!({"tools": [other]}))).await;
            assert_eq!(omitted(&answer), kind);
            assert_eq!(conversation(&script.last()).tools, None, "{kind}");
        }
    }
}

#[tokio::test]
async fn errors_about_schemas_name_a_tool_by_its_place_in_the_body() {
    let function = json!({"type": "function", "function": {"name": "f"}});
    let plain = json!({"name": "f", "input_schema": {"type": "object"}});
    let flat = json!({"type": "function", "name": "f"});
    let namespace = json!({"type": "namespace", "name": "n", "tools": [{"type": "x"}, flat]});
    let other = json!({"type": "web_search", "name": "web_search"});
    for (path, tool, name, field) in [
        (CHAT, &function, "f", "tools[1].function.parameters"),
        (RESPONSES, &flat, "f", "tools[1].parameters"),
        (RESPONSES, &namespace, "n__f", "tools[1].tools[1].parameters"),
        (MESSAGES, &plain, "f", "tools[1].input_schema"),
    ] {
        let script = Script::new();
        ask(&script, path, &body(path, &json!({"tools": [other, tool]}))).await.json();
        assert_eq!(script.last().schema_fields.tools[name], field);
    }
}

#[tokio::test]
async fn what_is_left_out_is_in_the_log() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let written = lines.clone();
    let log = Log::new(move |entry| written.lock().unwrap().push(entry.message.clone()));
    let app = App::new(Script::new(), Settings { log, ..settings() });
    let tools = json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]});
    post(&app, MESSAGES, body(MESSAGES, &tools)).await.json();
    let mut counted = body(MESSAGES, &tools);
    counted.as_object_mut().unwrap().remove("max_tokens");
    let answer = post(&app, "/v1/messages/count_tokens", counted).await;
    assert_eq!(omitted(&answer), "web_search_20250305");
    let line = "Left out of the prompt: web_search_20250305";
    assert_eq!(lines.lock().unwrap().iter().filter(|entry| *entry == line).count(), 2);
}

#[tokio::test]
async fn a_choice_of_a_tool_that_is_left_out_is_refused_by_name() {
    let search = json!({"type": "web_search_20250305", "name": "web_search"});
    for (path, tools, choice, place) in [
        (MESSAGES, json!([search]), json!({"type": "tool", "name": "web_search"}), "tool_choice"),
        (MESSAGES, json!([search]), json!({"type": "any"}), "tool_choice"),
        (RESPONSES, json!([{"type": "web_search"}]), json!("required"), "tool_choice"),
        (
            RESPONSES,
            json!([{"type": "web_search"}, {"type": "function", "name": "f"}]),
            json!({"type": "web_search"}),
            "tool_choice.type",
        ),
        (CHAT, json!([{"type": "web_search"}]), json!("required"), "tool_choice"),
    ] {
        let more = json!({"tools": tools, "tool_choice": choice});
        let answer = ask(&Script::new(), path, &body(path, &more)).await;
        let message =
            format!("`{place}`: the tool `web_search` is left out, as it cannot run here");
        assert_eq!(answer.refused(400), message);
    }
    let allowed = json!({"type": "allowed_tools", "mode": "auto",
        "tools": [{"type": "web_search"}, {"type": "function", "name": "f"}]});
    let tools = json!([{"type": "web_search"}, {"type": "function", "name": "f"}]);
    let more = json!({"tools": tools, "tool_choice": allowed});
    let script = Script::new();
    ask(&script, RESPONSES, &body(RESPONSES, &more)).await.json();
    assert_eq!(names(&script), ["f"]);
}

#[tokio::test]
async fn a_custom_tool_takes_a_text() {
    let format = json!({"type": "grammar", "syntax": "lark", "definition": "start: \"*\""});
    let call = tool_call("1", "apply_patch", r#"{"input":"*** Begin"}"#);
    let script = Script::new().with("patches", [call]);
    let tool = json!({"type": "custom", "name": "apply_patch", "description": "Edits.",
        "format": format});
    let more = json!({"model": "patches", "tools": [tool], "stream": true});
    let answer = ask(&script, RESPONSES, &body(RESPONSES, &more)).await;
    let function = conversation(&script.last()).tools.unwrap()[0]["function"].clone();
    assert_eq!(function["parameters"]["required"], json!(["input"]));
    let told = "Edits.\n\nThe text in `input` follows this grammar (lark):\nstart: \"*\"";
    assert_eq!(function["description"], told);
    let events = answer.events();
    let done = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap().clone();
    assert_eq!(done("response.custom_tool_call_input.done")["input"], "*** Begin");
    let item = done("response.output_item.done")["item"].clone();
    assert_eq!((&item["type"], &item["input"]), (&json!("custom_tool_call"), &json!("*** Begin")));
    let output = json!({"type": "custom_tool_call_output", "call_id": "1", "output": "Done"});
    let more = json!({"input": [item, output]});
    ask(&script, RESPONSES, &body(RESPONSES, &more)).await.json();
    let messages = conversation(&script.last()).messages;
    let function = json!({"name": "apply_patch", "arguments": {"input": "*** Begin"}});
    assert_eq!(messages[0]["tool_calls"][0]["function"], function);
    assert_eq!(messages[1], json!({"role": "tool", "tool_call_id": "1", "content": "Done"}));

    let tool = json!({"type": "custom", "custom": {"name": "apply_patch"}});
    let more = json!({"model": "patches", "tools": [tool]});
    let answer = ask(&script, CHAT, &body(CHAT, &more)).await.json();
    let message = answer["choices"][0]["message"].clone();
    let custom = json!({"name": "apply_patch", "input": "*** Begin"});
    assert_eq!(message["tool_calls"][0]["custom"], custom);
    ask(&script, CHAT, &body(CHAT, &json!({"messages": [message]}))).await.json();
    let call = conversation(&script.last()).messages[0]["tool_calls"][0].clone();
    assert_eq!(call["function"]["arguments"], json!({"input": "*** Begin"}));
}

#[tokio::test]
async fn the_history_of_another_server_is_read() {
    let script = Script::new();
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "News?"},
        {"role": "assistant", "content": [
            {"type": "redacted_thinking", "data": "aa"},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
            {"type": "text", "text": "None."},
            {"type": "tool_use", "id": "t1", "name": "f", "input": null},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [
                {"type": "search_result", "title": "A", "source": "a.txt", "content": [
                    {"type": "text", "text": "B"}]},
            ]},
            {"type": "document", "source": {"type": "text", "data": "C"}},
        ]},
        {"role": "developer", "content": "Now."},
    ]);
    let answer = ask(&script, MESSAGES, &body(MESSAGES, &json!({"messages": messages}))).await;
    assert_eq!(omitted(&answer), "redacted_thinking, server_tool_use, web_search_tool_result");
    let call = json!({"id": "t1", "type": "function",
        "function": {"name": "f", "arguments": {}}});
    let expected = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "News?"},
        {"role": "assistant", "content": [{"type": "text", "text": "None."}],
            "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "A\na.txt\nB"},
        {"role": "user", "content": [{"type": "text", "text": "C"}]},
        {"role": "system", "content": "Now."},
    ]);
    assert_eq!(Value::from(conversation(&script.last()).messages), expected);

    let input = json!([
        {"role": "user", "content": "Hi"},
        {"type": "reasoning", "summary": [], "encrypted_content": "aa"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"type": "local_shell_call", "call_id": "2", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "call_id": "2", "output": "a.txt"},
        {"type": "function_call", "call_id": "3", "name": "f", "arguments": ""},
        {"type": "function_call_output", "call_id": "3", "output": [
            {"type": "input_text", "text": "ok"}]},
    ]);
    let answer = ask(&script, RESPONSES, &body(RESPONSES, &json!({"input": input}))).await;
    assert_eq!(omitted(&answer), "reasoning, web_search_call");
    let messages = conversation(&script.last()).messages;
    let shell = &messages[1]["tool_calls"][0]["function"];
    assert_eq!(
        (&shell["name"], &shell["arguments"]["command"][0]),
        (&json!("local_shell"), &json!("ls"))
    );
    assert_eq!(messages[2]["content"], "a.txt");
    assert_eq!(messages[3]["tool_calls"][0]["function"]["arguments"], json!({}));
}

#[tokio::test]
async fn deferred_tools_are_shown_once_the_conversation_loads_them() {
    let tool = |name: &str| json!({"name": name, "input_schema": {}, "defer_loading": true});
    let result = json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "1", "content": [
            {"type": "tool_reference", "tool_name": "a"}]}]});
    let change = |kind: &str, name: &str| {
        json!({"role": "system", "content": [
            {"type": kind, "tool": {"type": "tool_reference", "name": name}}]})
    };
    let defined = json!({"role": "system", "content": [{"type": "tool_addition", "tool":
        {"type": "tool_definition", "definition": {"name": "d", "input_schema": {}}}}]});
    let said = json!({"role": "user", "content": "Hi"});
    let search = json!({"type": "tool_search_tool_bm25_20251119", "name": "s"});
    for (messages, more, shown) in [
        (json!([said]), None, vec![]),
        (json!([said, result]), None, vec!["a"]),
        (json!([said, change("tool_addition", "b")]), None, vec!["b"]),
        (json!([said, result, change("tool_removal", "a")]), None, vec![]),
        (json!([said, defined]), None, vec!["d"]),
        (json!([said]), Some(search), vec!["a", "b"]),
    ] {
        let tools: Vec<Value> = [tool("a"), tool("b")].into_iter().chain(more).collect();
        let script = Script::new();
        let more = json!({"messages": messages, "tools": tools});
        ask(&script, MESSAGES, &body(MESSAGES, &more)).await.json();
        assert_eq!(names(&script), shown);
    }
}

#[tokio::test]
async fn hints_are_taken_and_other_fields_refused_by_name_in_all_apis() {
    let hints = json!({
        "context_management": {}, "client_metadata": {"a": "b"}, "metadata": {"a": "b"},
        "verbosity": "low", "store": true, "truncation": "auto", "service_tier": "flex",
        "prediction": {"type": "content", "content": "a"}, "cache_prompt": true,
        "keep_alive": "5m", "priority": 1, "prompt_cache_key": "a", "safety_identifier": "a",
        "user": "me", "betas": ["a"], "cache_control": {"type": "ephemeral"},
        "prompt_cache_retention": "24h", "ignore_eos": false, "min_tokens": 0,
        "skip_special_tokens": true, "length_penalty": 1.0, "top_k": -1,
    });
    for path in [CHAT, RESPONSES, MESSAGES, "/v1/completions"] {
        let mut hinted = body(path, &hints);
        if path == "/v1/completions" {
            hinted.as_object_mut().unwrap().remove("messages");
            hinted["prompt"] = "Hi".into();
        }
        ask(&Script::new(), path, &hinted).await.json();
        for (name, value) in [
            ("ignore_eos", json!(true)),
            ("min_tokens", json!(5)),
            ("length_penalty", json!(0.5)),
            ("chat_template", json!("a")),
            ("foo", json!(1)),
        ] {
            let mut refused = hinted.clone();
            refused[name] = value;
            let answer = ask(&Script::new(), path, &refused).await;
            assert_eq!(answer.refused(400), format!("`{name}` is not supported"));
        }
        let mut renamed = hinted.clone();
        renamed["repeat_penalty"] = json!(1.1);
        let answer = ask(&Script::new(), path, &renamed).await;
        let message = "`repeat_penalty` is not supported; use `repetition_penalty`";
        assert_eq!(answer.refused(400), message);
    }
}

#[tokio::test]
async fn a_model_without_a_place_for_tools_answers_without_them() {
    let script = Script::new().toolless("words");
    let function = json!({"type": "function", "function": {"name": "f"}});
    for stream in [false, true] {
        let more = json!({"tools": [function, {"type": "web_search"}], "stream": stream});
        let answer = ask(&script, CHAT, &body(CHAT, &more)).await;
        assert_eq!(omitted(&answer), "web_search, tools");
        assert!(answer.text.contains("three."), "{}", answer.text);
    }
}
