//! OpenAI's responses.

use mlxk_processor::Event;
use mlxk_serve::App;
use mlxk_testengine::{Answered, Script, conversation, post, settings, text, tool_call};
use serde_json::{Value, json};

async fn respond(script: &Script, more: Value) -> Answered {
    let mut body = json!({"model": "words", "input": "Hi"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(&App::new(script.clone(), settings()), "/v1/responses", body).await
}

#[tokio::test]
async fn an_answer_is_a_list_of_items() {
    let script = Script::new();
    let answer = respond(&script, json!({"instructions": "Be brief.", "temperature": 0.5})).await;
    let answer = answer.json();
    assert_eq!((&answer["object"], &answer["status"]), (&json!("response"), &json!("completed")));
    assert_eq!((&answer["model"], &answer["temperature"]), (&json!("words"), &json!(0.5)));
    let part = json!({
        "type": "output_text", "text": "One two three.", "annotations": [], "logprobs": [],
    });
    assert_eq!(answer["output"][0]["content"], json!([part]));
    assert_eq!(answer["usage"]["total_tokens"], 10);
    let messages = json!([
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
    ]);
    assert_eq!(Value::from(conversation(&script.last()).messages), messages);
}

#[tokio::test]
async fn a_stream_tells_of_every_item() {
    let answer = respond(&Script::new(), json!({"stream": true})).await;
    let events = answer.events();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds, expected);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(events[7]["text"], "One two three.");
    assert_eq!(events[10]["response"]["output"][0], events[9]["item"]);
}

#[tokio::test]
async fn calls_and_their_outputs_go_both_ways() {
    let script = Script::new();
    let tool = json!({"type": "function", "name": "weather", "parameters": {"type": "object"}});
    let input = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "Sun"},
    ]);
    let more = json!({"model": "calls", "tools": [tool], "input": input});
    let answer = respond(&script, more.clone()).await.json();
    assert_eq!(answer["output"][0]["type"], "reasoning");
    let call = &answer["output"][1];
    assert_eq!((&call["type"], &call["call_id"]), (&json!("function_call"), &json!("call_1")));
    let messages = conversation(&script.last()).messages;
    assert_eq!(messages[1]["tool_calls"][0]["function"]["name"], "weather");
    assert_eq!(messages[2], json!({"role": "tool", "tool_call_id": "1", "content": "Sun"}));
    let mut more = more;
    more["stream"] = true.into();
    let answer = respond(&script, more).await;
    assert!(answer.text.contains("event: response.function_call_arguments.done"));
}

#[tokio::test]
async fn unsupported_fields_are_refused_by_name() {
    for (more, message) in [
        (json!({"previous_response_id": "r"}), "`previous_response_id` is not supported"),
        (json!({"max_tokens": 5}), "`max_tokens` is not supported; use `max_output_tokens`"),
        (json!({"background": true}), "`background`: only false is supported"),
        (json!({"input": null}), "`input` is missing"),
        (json!({"input": [{"role": "user", "content": "a"}, 5]}), "`input[1]` is not an object"),
        (
            json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
            "`input[0].type`: `item_reference` is not supported: no items are stored, so send the \
             item itself",
        ),
        (json!({"input": [{"type": "poem"}]}), "`input[0].type`: `poem` is not supported"),
        (json!({"parallel_tool_calls": 1}), "`parallel_tool_calls` is not true or false"),
        (
            json!({"text": {"format": {"type": "json_schema", "schema": {}, "examples": []}}}),
            "`text.format.examples` is not supported",
        ),
        (
            json!({"tools": [{"type": "function", "name": "f"}, {"type": "function"}]}),
            "`tools[1].name` is not a text",
        ),
    ] {
        assert_eq!(respond(&Script::new(), more).await.refused(400), message);
    }
}

#[tokio::test]
async fn an_answer_can_be_sent_back_as_it_came() {
    let call = tool_call("1", "weather", "{}");
    let says = [Event::Reasoning("Hm.".into()), text("Wait."), call];
    let script = Script::new().with("all", says);
    let answer = respond(&script, json!({"model": "all"})).await.json();
    let mut input = vec![json!({"role": "user", "content": "Hi"})];
    input.extend(answer["output"].as_array().unwrap().clone());
    input.push(json!({"type": "function_call_output", "call_id": "1", "output": "Sun"}));
    input.extend(answer["output"].as_array().unwrap()[..2].iter().cloned());
    respond(&script, json!({"input": input})).await.json();
    let content = json!([{"type": "text", "text": "Wait."}]);
    let function = json!({"name": "weather", "arguments": {}});
    let expected = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": content, "reasoning_content": "Hm.",
            "tool_calls": [{"id": "1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "1", "content": "Sun"},
        {"role": "assistant", "content": content, "reasoning_content": "Hm."},
    ]);
    assert_eq!(Value::from(conversation(&script.last()).messages), expected);
}

#[tokio::test]
async fn a_cut_answer_is_incomplete() {
    let answer = respond(&Script::new(), json!({"max_output_tokens": 1})).await.json();
    assert_eq!(answer["status"], "incomplete");
    assert_eq!(answer["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(answer["output"][0]["status"], "incomplete");
    let more = json!({"max_output_tokens": 1, "stream": true});
    let events = respond(&Script::new(), more).await.events();
    let done = events.iter().find(|event| event["type"] == "response.output_item.done").unwrap();
    assert_eq!(done["item"]["status"], "incomplete");
}
