//! Anthropic's messages.

use mlxk_processor::request::Options;
use mlxk_serve::App;
use mlxk_testengine::{Answered, PROMPT, Script, conversation, post, settings};
use serde_json::{Value, json};

async fn message(script: &Script, more: Value) -> Answered {
    let mut body = json!({
        "model": "words", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(&App::new(script.clone(), settings()), "/v1/messages", body).await
}

#[tokio::test]
async fn an_answer_is_a_message() {
    let script = Script::new();
    let more = json!({"system": "Be brief.", "stop_sequences": ["x"], "top_k": 3});
    let answer = message(&script, more).await.json();
    assert_eq!((&answer["type"], &answer["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(answer["content"], json!([{"type": "text", "text": "One two three."}]));
    assert_eq!(answer["stop_reason"], "end_turn");
    assert_eq!(
        (&answer["usage"]["input_tokens"], &answer["usage"]["output_tokens"]),
        (&json!(7), &json!(3))
    );
    let request = script.last();
    let messages = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "Hi"}),
    ];
    assert_eq!(conversation(&request).messages, messages);
    let stop = Some(vec!["x".to_owned()]);
    let options = Options { max_tokens: Some(9), top_k: Some(3), stop, ..Options::default() };
    assert_eq!(request.options, options);
}

#[tokio::test]
async fn a_stop_sequence_is_named() {
    let more = json!({"stop_sequences": ["x", " two"]});
    let answer = message(&Script::new(), more).await.json();
    assert_eq!(answer["content"][0]["text"], "One");
    assert_eq!(answer["stop_reason"], "stop_sequence");
    assert_eq!(answer["stop_sequence"], " two");
    let more = json!({"stop_sequences": [" two"], "stream": true});
    let answer = message(&Script::new(), more).await;
    let delta = json!({"stop_reason": "stop_sequence", "stop_sequence": " two"});
    assert!(answer.events().iter().any(|event| event["delta"] == delta), "{}", answer.text);
}

#[tokio::test]
async fn a_stream_is_of_blocks() {
    let tool = json!({"name": "weather", "input_schema": {"type": "object"}});
    let more = json!({"model": "calls", "stream": true, "tools": [tool]});
    let answer = message(&Script::new(), more).await;
    let names = answer.text.lines().filter_map(|line| line.strip_prefix("event: "));
    let expected = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names.collect::<Vec<_>>(), expected);
    let events = answer.events();
    assert_eq!(events[2]["delta"], json!({"type": "thinking_delta", "thinking": "Hm."}));
    let block = json!({"type": "tool_use", "id": "call_1", "name": "weather", "input": {}});
    assert_eq!((&events[4]["index"], &events[4]["content_block"]), (&json!(1), &block));
    assert_eq!(events[7]["delta"]["stop_reason"], "tool_use");
}

#[tokio::test]
async fn a_conversation_with_tools_reaches_the_engine_in_the_form_of_templates() {
    let script = Script::new();
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": ""},
            {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "Paris"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "Sun"}]},
        ]},
    ]);
    message(&script, json!({"messages": messages})).await.json();
    let function = json!({"name": "weather", "arguments": {"city": "Paris"}});
    let expected = json!([
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
        {"role": "assistant", "reasoning_content": "Hm.", "content": null,
            "tool_calls": [{"id": "1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "1", "content": "Sun"},
    ]);
    assert_eq!(Value::from(conversation(&script.last()).messages), expected);
}

#[tokio::test]
async fn a_strict_function_reaches_the_engine_as_one() {
    let script = Script::new();
    let tool = json!({"name": "a", "input_schema": {}, "strict": true, "defer_loading": false});
    message(&script, json!({"tools": [tool]})).await.json();
    let function = json!({"name": "a", "parameters": {}, "strict": true});
    let expected = json!([{"type": "function", "function": function}]);
    assert_eq!(Value::from(conversation(&script.last()).tools), expected);
}

#[tokio::test]
async fn tool_results_keep_all_their_content() {
    let script = Script::new();
    let image = json!({"type": "image", "source": {"type": "base64", "data": "AA=="}});
    let given = |content: Value, after: Value| {
        let result = json!({"type": "tool_result", "tool_use_id": "1", "content": content});
        let mut messages = json!([
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "1", "name": "weather", "input": {}},
            ]},
            {"role": "user", "content": [result]},
        ]);
        messages.as_array_mut().unwrap().extend(after.as_array().unwrap().clone());
        json!({"messages": messages})
    };
    let text = json!({"type": "text", "text": "Sun"});
    let answer = message(&script, given(json!([text, image]), json!([]))).await;
    let place = "`messages[2].content[0].content[1]`";
    assert_eq!(answer.refused(422), format!("{place}: image input is not supported, only text is"));
    let after = json!([{"role": "assistant", "content": "Sun."}, {"role": "user", "content": "a"}]);
    message(&script, given(json!([text, image]), after)).await.json();
    let told = conversation(&script.last()).messages[2]["content"].clone();
    assert_eq!(told, json!([text, {"type": "text", "text": "[1 image was attached]"}]));
    for (wrong, what) in [
        (json!([text, {"text": 1}]), ".content[1].type` is not a text"),
        (json!([{"type": "text"}]), ".content[0].text` is not a text"),
        (json!([{"type": "poem"}]), ".content[0].type`: `poem` is not supported"),
        (json!(5), ".content` is not a text or a list of blocks"),
    ] {
        let answer = message(&script, given(wrong, json!([]))).await;
        assert_eq!(answer.refused(400), format!("`messages[2].content[0]{what}"));
    }
    message(&script, given(Value::Null, json!([]))).await.json();
    assert_eq!(conversation(&script.last()).messages[2]["content"], "");
    let mut failed = given(json!("No such city"), json!([]));
    failed["messages"][2]["content"][0]["is_error"] = true.into();
    message(&script, failed).await.json();
    let told = conversation(&script.last()).messages[2]["content"].clone();
    assert_eq!(told, "Error: No such city");
}

#[tokio::test]
async fn the_template_is_told_how_much_to_think() {
    let script = Script::new();
    let more = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}});
    message(&script, more).await.json();
    let told = conversation(&script.last()).variables;
    assert_eq!(Value::from(told), json!({"enable_thinking": true, "reasoning_effort": "low"}));
}

#[tokio::test]
async fn thinking_is_shown_unless_it_is_to_be_left_out() {
    let more = |display: &str, stream: bool| {
        let thinking = json!({"type": "enabled", "budget_tokens": 1024, "display": display});
        json!({"model": "calls", "thinking": thinking, "stream": stream})
    };
    let answer = message(&Script::new(), more("summarized", false)).await.json();
    assert_eq!(answer["content"][0]["thinking"], "Hm.");
    let answer = message(&Script::new(), more("omitted", false)).await.json();
    let block = json!({"type": "thinking", "thinking": "", "signature": ""});
    assert_eq!(answer["content"][0], block);
    let answer = message(&Script::new(), more("omitted", true)).await;
    assert!(answer.text.contains("\"thinking\"") && !answer.text.contains("Hm."), "{answer:?}");
}

#[tokio::test]
async fn errors_are_in_its_own_form() {
    for (more, status, kind, message_) in [
        (json!({"foo": 1}), 400, "invalid_request_error", "`foo` is not supported"),
        (json!({"max_tokens": null}), 400, "invalid_request_error", "`max_tokens` is missing"),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": "many"}}),
            400,
            "invalid_request_error",
            "`thinking.budget_tokens` is not a whole number from 1",
        ),
        (
            json!({"thinking": {"type": "enabled", "display": "loud"}}),
            400,
            "invalid_request_error",
            "`thinking.display` is not summarized, updates or omitted",
        ),
        (
            json!({"tools": [{"name": "a", "foo": 1}]}),
            400,
            "invalid_request_error",
            "`tools[0].foo` is not supported",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "tool"}]}),
            400,
            "invalid_request_error",
            "`messages[1].role` is not user, assistant or system",
        ),
        (
            json!({"model": "none"}),
            404,
            "not_found_error",
            "none: no such model (GET /v1/models lists them)",
        ),
    ] {
        let answer = message(&Script::new(), more).await;
        assert_eq!(answer.refused(status), message_);
        let body = answer.json();
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
        for header in ["x-request-id", "request-id"] {
            assert_eq!(body["request_id"], answer.headers[header].to_str().unwrap());
        }
    }
}

#[tokio::test]
async fn tokens_of_a_prompt_are_counted() {
    let body = json!({"model": "words", "messages": [{"role": "user", "content": "Hi"}]});
    let app = App::new(Script::new(), settings());
    let answer = post(&app, "/v1/messages/count_tokens", body).await.json();
    assert_eq!(answer, json!({"input_tokens": PROMPT}));
}
