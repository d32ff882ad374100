//! Chat completions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mlxk_processor::request::{Options, Rules, SchemaFields};
use mlxk_serve::{App, Entry, Log, Settings};
use mlxk_testengine::{Answered, ROOM, Script, conversation, post, settings, tool_call};
use serde_json::{Value, json};

const PATH: &str = "/v1/chat/completions";

fn asked(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
}

async fn chat(script: &Script, more: Value) -> Answered {
    let app = App::new(script.clone(), settings());
    let mut body = asked(more["model"].as_str().unwrap_or("words"));
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(&app, PATH, body).await
}

#[tokio::test]
async fn an_answer_is_a_document() {
    let answer = chat(&Script::new(), json!({})).await.json();
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(answer["model"], "words");
    let message = json!({"role": "assistant", "content": "One two three.", "refusal": null});
    assert_eq!(
        answer["choices"],
        json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}])
    );
    let usage = json!({
        "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    });
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn a_stream_brings_the_same_piece_by_piece() {
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = chat(&Script::new(), options).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.headers["cache-control"], "no-cache");
    assert!(answer.text.ends_with("data: [DONE]\n\n"));
    let events = answer.events();
    let deltas: Vec<_> = events.iter().map(|e| e["choices"][0]["delta"].clone()).collect();
    let expected = [
        json!({"role": "assistant", "content": ""}),
        json!({"content": "One"}),
        json!({"content": " two"}),
        json!({"content": " three."}),
        json!({}),
        Value::Null,
    ];
    assert_eq!(deltas, expected);
    assert_eq!(events[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[4]["usage"], Value::Null);
    assert_eq!(events[5]["choices"], json!([]));
    assert_eq!(events[5]["usage"]["total_tokens"], 10);
}

#[tokio::test]
async fn a_stream_has_no_usage_unless_it_is_requested() {
    let answer = chat(&Script::new(), json!({"stream": true})).await;
    assert!(!answer.text.contains("usage"), "{}", answer.text);
}

#[tokio::test]
async fn reasoning_and_calls_stand_apart() {
    let script = Script::new();
    let more = json!({"model": "calls", "tools": [tool()]});
    let answer = chat(&script, more.clone()).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    assert_eq!(choice["message"]["reasoning_content"], "Hm.");
    assert_eq!(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], 1);
    let call = json!({
        "id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": r#"{"city":"Paris"}"#},
    });
    assert_eq!(choice["message"]["tool_calls"], json!([call]));
    assert_eq!(conversation(&script.last()).tools, Some(vec![tool()]));

    let mut more = more;
    more["stream"] = true.into();
    let events = chat(&script, more).await.events();
    assert_eq!(events[1]["choices"][0]["delta"], json!({"reasoning_content": "Hm."}));
    let told = &events[2]["choices"][0]["delta"]["tool_calls"][0];
    assert_eq!((&told["index"], &told["function"]), (&json!(0), &call["function"]));
    assert_eq!(events[3]["choices"][0]["finish_reason"], "tool_calls");
}

fn tool() -> Value {
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    json!({"type": "function", "function": {"name": "weather", "parameters": city}})
}

#[tokio::test]
async fn tool_choice_and_response_format_reach_the_engine_together() {
    let script = Script::new();
    let format = json!({"type": "json_object"});
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "weather"}})]
    {
        let more = json!({"tools": [tool()], "tool_choice": choice, "response_format": format});
        chat(&script, more).await.json();
        assert_eq!(script.last().rules, Some(Rules::Call(vec![tool()])));
    }
    let more = json!({"tools": [tool()], "tool_choice": "none", "response_format": format});
    chat(&script, more).await.json();
    let request = script.last();
    assert_eq!(request.rules, Some(Rules::Schema(json!({"type": "object"}))));
    assert_eq!(conversation(&request).tools, None);
}

#[tokio::test]
async fn the_engine_knows_of_the_allowed_functions_alone() {
    let script = Script::new();
    let other = json!({"type": "function", "function": {"name": "time"}});
    let allowed = |mode: &str, name: &str| {
        let tools = json!([{"type": "function", "function": {"name": name}}]);
        let choice =
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}});
        json!({"tools": [tool(), other], "tool_choice": choice})
    };
    let required = Some(Rules::Call(vec![other.clone()]));
    for (mode, rules) in [("auto", None), ("required", required)] {
        chat(&script, allowed(mode, "time")).await.json();
        let request = script.last();
        assert_eq!(conversation(&request).tools, Some(vec![other.clone()]));
        assert_eq!(request.rules, rules);
    }
    chat(&script, allowed("auto", "none")).await.refused(400);
    chat(&script, allowed("never", "time")).await.refused(400);
}

#[tokio::test]
async fn without_parallel_calls_all_but_the_first_are_dropped() {
    let call = |id: &str| tool_call(id, "weather", "{}");
    let script = Script::new().with("eager", ["a", "b", "c"].map(call));
    for (several, calls) in [(true, 3), (false, 1)] {
        for stream in [false, true] {
            let more = json!({"model": "eager", "tools": [tool()], "stream": stream,
                "parallel_tool_calls": several});
            let answer = chat(&script, more).await;
            assert_eq!(answer.text.matches("weather").count(), calls, "{}", answer.text);
            assert!(answer.text.contains(r#""finish_reason":"tool_calls""#), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn several_answers_have_seeds_of_their_own() {
    let script = Script::new();
    let answer = chat(&script, json!({"n": 3, "seed": -1})).await.json();
    let texts: Vec<_> =
        answer["choices"].as_array().unwrap().iter().map(|c| &c["message"]["content"]).collect();
    assert_eq!(texts, ["One two three."; 3]);
    assert_eq!(answer["usage"]["prompt_tokens"], 7);
    assert_eq!(answer["usage"]["completion_tokens"], 9);
    assert_eq!(script.last().options.seed, Some(1));

    let events = chat(&script, json!({"n": 2, "stream": true})).await.events();
    for number in 0..2 {
        let own = events.iter().filter(|e| e["choices"][0]["index"] == number);
        let text: String =
            own.filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "One two three.");
    }
}

#[tokio::test]
async fn every_option_reaches_the_engine() {
    let script = Script::new();
    let more = json!({
        "max_completion_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["\n"],
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "logit_bias": {"5": -100},
        "logprobs": true, "top_logprobs": 2, "reasoning_effort": "none", "top_k": 3, "min_p": 0.1,
        "top_n_sigma": 1, "typical_p": 0.5, "dry_multiplier": 0.8, "dry_base": 2,
        "dry_allowed_length": 3, "dry_penalty_last_n": -1, "dry_sequence_breakers": ["\n"],
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "a", "strict": true, "schema": {"type": "object"},
        }},
        "user": "me", "metadata": {"a": "b"}, "store": false,
    });
    chat(&script, more).await.json();
    let request = script.last();
    let expected = Options {
        seed: Some(7),
        temperature: Some(0.5),
        top_p: Some(0.9),
        top_k: Some(3),
        min_p: Some(0.1),
        top_n_sigma: Some(1.0),
        typical_p: Some(0.5),
        dry_multiplier: Some(0.8),
        dry_base: Some(2.0),
        dry_allowed_length: Some(3),
        dry_penalty_last_n: Some(-1),
        dry_sequence_breakers: Some(vec!["\n".to_owned()]),
        presence_penalty: Some(0.1),
        frequency_penalty: Some(0.2),
        logit_bias: Some(vec![(5, -100.0)]),
        stop: Some(vec!["\n".to_owned()]),
        max_tokens: Some(5),
        logprobs: Some(2),
        ..Options::default()
    };
    assert_eq!(request.options, expected);
    assert_eq!(request.rules, Some(Rules::Schema(json!({"type": "object"}))));
    let conversation = conversation(&request);
    assert_eq!(conversation.messages, [json!({"role": "user", "content": "Hi"})]);
    let variables = json!({"enable_thinking": false, "reasoning_effort": "none"});
    assert_eq!(Value::from(conversation.variables), variables);
}

#[tokio::test]
async fn log_probabilities_come_with_their_tokens() {
    let script = Script::new();
    let more = json!({"logprobs": true, "top_logprobs": 1});
    let answer = chat(&script, more.clone()).await.json();
    let first = &answer["choices"][0]["logprobs"]["content"][0];
    assert_eq!((&first["token"], &first["logprob"]), (&json!("One"), &json!(-0.5)));
    assert_eq!(first["bytes"], json!([79, 110, 101]));
    assert_eq!(first["top_logprobs"].as_array().unwrap().len(), 1);
    let mut more = more;
    more["stream"] = true.into();
    let events = chat(&script, more).await.events();
    assert_eq!(events[1]["choices"][0]["logprobs"]["content"][0]["token"], "One");
}

#[tokio::test]
async fn unsupported_fields_are_refused_by_name() {
    let script = Script::new();
    for (more, message, param) in [
        (json!({"foo": 1}), "`foo` is not supported", "foo"),
        (json!({"audio": {}}), "`audio` is not supported", "audio"),
        (
            json!({"stop_token_ids": [1]}),
            "`stop_token_ids` is not supported; use `stop_ids`",
            "stop_token_ids",
        ),
        (json!({"n": 0}), "`n` is not a whole number from 1 to 128", "n"),
        (json!({"model": ""}), "`model` is missing", "model"),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 2}),
            "`max_tokens` and `max_completion_tokens` say different things",
            "max_tokens",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant",
                "content": null, "function_call": {"name": "f", "arguments": "{}"}}]}),
            "`messages[1].function_call` is not supported; use `tool_calls`",
            "messages[1].function_call",
        ),
        (json!({"stream": 1}), "`stream` is not true or false", "stream"),
        (json!({"stream_options": {}}), "`stream_options` goes with `stream`", "stream_options"),
        (json!({"top_logprobs": 2}), "`top_logprobs` goes with `logprobs`", "top_logprobs"),
        (json!({"tools": [1]}), "`tools[0]` is not an object", "tools[0]"),
        (json!({"tool_choice": "required"}), "`tool_choice` is none of `tools`", "tool_choice"),
        (
            json!({"parallel_tool_calls": "no"}),
            "`parallel_tool_calls` is not true or false",
            "parallel_tool_calls",
        ),
        (
            json!({"tools": [tool()], "tool_choice": {"function": {"name": "time"}}}),
            "`tool_choice` is none of `tools`",
            "tool_choice",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {
                "schema": {}, "examples": [],
            }}}),
            "`response_format.json_schema.examples` is not supported",
            "response_format.json_schema.examples",
        ),
        (
            json!({"json_schema": {}, "response_format": {"type": "json_object"}}),
            "`json_schema` and `response_format` both ask for a form",
            "json_schema",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}),
            "`messages[0].tool_calls[0]` is not a call of a function",
            "messages[0].tool_calls[0]",
        ),
        (json!({"messages": []}), "`messages` is not a list of objects with a `role`", "messages"),
        (
            json!({"response_format": {"type": "xml"}}),
            "`response_format.type` is not text, json_object or json_schema",
            "response_format.type",
        ),
    ] {
        let answer = chat(&script, more).await;
        assert_eq!(answer.refused(400), message);
        let error = &answer.json()["error"];
        assert_eq!(error["type"], "invalid_request_error");
        assert_eq!((&error["code"], &error["param"]), (&json!("validation_error"), &json!(param)));
    }
    let lenient = App::new(script, Settings { lenient: true, ..settings() });
    let mut body = asked("words");
    body["foo"] = 1.into();
    body["store"] = true.into();
    assert_eq!(post(&lenient, PATH, body).await.status, 200);
}

#[tokio::test]
async fn media_are_refused_where_they_are_asked_about() {
    let script = Script::new();
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}});
    let user =
        |part: &Value| json!({"role": "user", "content": [{"type": "text", "text": "a"}, part]});
    let answer = chat(&script, json!({"messages": [user(&image)]})).await;
    let message = "`messages[0].content[1]`: image input is not supported, only text is";
    assert_eq!(answer.refused(422), message);
    let later = json!([user(&image), {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}]);
    chat(&script, json!({"messages": later})).await.json();
    let told = conversation(&script.last()).messages[0]["content"][1].clone();
    assert_eq!(told, json!({"type": "text", "text": "[1 image was attached]"}));
    let call = json!({"role": "assistant", "content": null, "tool_calls": []});
    let result = json!({"role": "tool", "tool_call_id": "1", "content": [image]});
    for asked in [
        json!([{"role": "user", "content": "a"}, call, result]),
        json!([{"role": "user", "content": "a"}, call, result, {"role": "user", "content": "b"}]),
    ] {
        let answer = chat(&script, json!({"messages": asked})).await;
        let message = "`messages[2].content[0]`: image input is not supported, only text is";
        assert_eq!(answer.refused(422), message);
    }
    let away = json!({"type": "image_url", "image_url": {"url": "http://a/b.png"}});
    let answer = chat(&script, json!({"messages": [user(&away)]})).await;
    assert!(answer.refused(400).contains("data URL"));
}

#[tokio::test]
async fn a_refusal_of_the_assistant_is_its_content() {
    let script = Script::new();
    let said = json!({"role": "assistant", "content": null, "refusal": "No.", "audio": null});
    let asked = json!({"role": "user", "content": "Hi"});
    chat(&script, json!({"messages": [asked, said, asked]})).await.json();
    let told = conversation(&script.last()).messages[1].clone();
    assert_eq!((&told["content"], &told["refusal"]), (&json!("No."), &Value::Null));
}

#[tokio::test]
async fn a_failure_is_told_without_a_path_of_the_machine() {
    let script = Script::new();
    let answer = chat(&script, json!({"model": "fails"})).await;
    assert_eq!(answer.refused(500), "model: failed");
    let answer = chat(&script, json!({"model": "fails", "stream": true})).await;
    let events = answer.events();
    assert_eq!(events.last().unwrap()["error"]["message"], "model: failed");
    assert!(!answer.text.contains("[DONE]"));
}

#[tokio::test]
async fn a_model_that_is_not_there_and_a_full_queue_have_their_status() {
    let answer = chat(&Script::new(), json!({"model": "none"})).await;
    answer.refused(404);
    assert_eq!(answer.json()["error"]["code"], "model_not_found");
    let answer = chat(&Script::new().most(0), json!({"stream": true})).await;
    answer.refused(429);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.json()["error"]["retryable"], true);
}

#[tokio::test]
async fn more_completions_than_the_queue_holds_are_invalid() {
    let script = Script::new();
    chat(&script, json!({"n": ROOM})).await.json();
    let body = json!({"model": "words", "prompt": ["a", "b"], "n": ROOM});
    let answer = post(&App::new(script, settings()), "/v1/completions", body).await;
    assert_eq!(answer.refused(400), "`prompt`: 256 answers at once, where 128 may wait");
}

#[tokio::test]
async fn a_large_body_keeps_nobody_waiting() {
    let app = App::new(Script::new(), Settings { max_body: 16 << 20, ..settings() });
    let mut body = asked("words");
    body["stop"] = vec!["a long string that stops"; 100_000].into();
    let done = AtomicBool::new(false);
    let others = async {
        let mut turns = 0;
        while !done.load(Ordering::Relaxed) {
            turns += 1;
            tokio::task::yield_now().await;
        }
        turns
    };
    let answer = async {
        post(&app, PATH, body).await.json();
        done.store(true, Ordering::Relaxed);
    };
    let ((), turns) = tokio::join!(answer, others);
    assert!(turns > 100, "{turns}");
}

#[tokio::test]
async fn what_is_left_of_the_schemas_of_tools_is_in_a_header_and_in_the_log() {
    let keyword = "`uniqueItems` at #/properties/a/uniqueItems in `tools[0].function.parameters`";
    let logged = Arc::new(Mutex::new(Vec::new()));
    let entries = Arc::clone(&logged);
    let log = Log::new(move |entry| entries.lock().unwrap().push(entry.clone()));
    let app = App::new(Script::new().unheld(keyword), Settings { log, ..settings() });
    for stream in [false, true] {
        let mut body = asked("words");
        body["stream"] = stream.into();
        let answer = post(&app, PATH, body).await;
        assert_eq!(answer.headers["x-mlxk-unenforced"], keyword);
    }
    let fields = |entry: &Entry| entry.fields.fields().get("unenforced").cloned();
    let found: Vec<Value> = logged.lock().unwrap().iter().filter_map(fields).collect();
    assert_eq!(found, [json!([keyword]), json!([keyword])]);
    let app = App::new(Script::new(), settings());
    let answer = post(&app, PATH, asked("words")).await;
    assert!(!answer.headers.contains_key("x-mlxk-unenforced"));
}

#[tokio::test]
async fn errors_about_schemas_name_the_field_that_the_client_sent() {
    let script = Script::new();
    let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {}}});
    chat(&script, json!({"response_format": schema})).await.json();
    assert_eq!(script.last().schema_fields.text, "response_format.json_schema.schema");
    chat(&script, json!({"json_schema": {}})).await.json();
    assert_eq!(script.last().schema_fields, SchemaFields::default());
}
