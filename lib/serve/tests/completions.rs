//! Completions.

use mlxk_processor::request::{Options, Prompt};
use mlxk_serve::{App, Settings};
use mlxk_testengine::{Answered, Script, post, settings};
use serde_json::{Value, json};

async fn complete(script: &Script, body: Value) -> Answered {
    post(&App::new(script.clone(), settings()), "/v1/completions", body).await
}

#[tokio::test]
async fn a_prompt_goes_to_the_model_as_it_is() {
    let script = Script::new();
    let answer = complete(&script, json!({"model": "words", "prompt": "Zero"})).await.json();
    assert_eq!(answer["object"], "text_completion");
    let choice = json!({
        "index": 0, "text": "One two three.", "logprobs": null, "finish_reason": "stop",
    });
    assert_eq!(answer["choices"], json!([choice]));
    let request = script.last();
    assert_eq!(request.prompt, Prompt::Text("Zero".to_owned()));
    assert_eq!(request.options, Options { max_tokens: Some(16), ..Options::default() });
}

#[tokio::test]
async fn the_server_may_say_how_long_an_answer_is() {
    let script = Script::new();
    let app = App::new(script.clone(), Settings { max_tokens: Some(2), ..settings() });
    let body = json!({"model": "words", "prompt": "Zero"});
    let answer = post(&app, "/v1/completions", body).await.json();
    assert_eq!(answer["choices"][0]["text"], "One two");
}

#[tokio::test]
async fn several_prompts_have_an_answer_each() {
    let body = json!({
        "model": "words", "prompt": ["a", "b"], "n": 2, "echo": true, "max_tokens": 1,
    });
    let answer = complete(&Script::new(), body).await.json();
    let texts: Vec<_> = answer["choices"].as_array().unwrap().iter().map(|c| &c["text"]).collect();
    assert_eq!(texts, ["aOne", "aOne", "bOne", "bOne"]);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["prompt_tokens"], 14, "each prompt counts once");
    let body = json!({"model": "words", "prompt": ["a", "b"], "echo": true, "stream": true});
    let events = complete(&Script::new(), body).await.events();
    let of = |number: usize| {
        let own = events.iter().filter(move |event| event["choices"][0]["index"] == number);
        own.filter_map(|event| event["choices"][0]["text"].as_str()).collect::<String>()
    };
    assert_eq!([of(0), of(1)], ["aOne two three.", "bOne two three."]);
}

#[tokio::test]
async fn tokens_are_prompts_too() {
    for (prompt, expected) in [(json!([3, 1]), [3, 1]), (json!([[5, 9]]), [5, 9])] {
        let script = Script::new();
        let answer = complete(&script, json!({"model": "words", "prompt": prompt})).await.json();
        assert_eq!(answer["choices"][0]["text"], "One two three.");
        assert_eq!(script.last().prompt, Prompt::Tokens(expected.to_vec()));
    }
}

#[tokio::test]
async fn a_stream_ends_with_done() {
    let body = json!({"model": "words", "prompt": "a", "stream": true, "logprobs": 1});
    let answer = complete(&Script::new(), body).await;
    assert!(answer.text.ends_with("data: [DONE]\n\n"));
    let events = answer.events();
    let text: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "One two three.");
    let logprobs = &events[2]["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!([" two"]));
    assert_eq!(logprobs["text_offset"], json!([3]));
}

#[tokio::test]
async fn unsupported_fields_are_refused_by_name() {
    for (more, message) in [
        (json!({"suffix": "a"}), "`suffix` is not supported"),
        (json!({"prompt": [1, -2]}), "`prompt` is not a text, tokens, or up to 128 of these"),
        (json!({"prompt": []}), "`prompt` is not a text, tokens, or up to 128 of these"),
        (json!({"prompt": [1, "a"]}), "`prompt` is not a text, tokens, or up to 128 of these"),
        (json!({"prompt": [1], "echo": true}), "`echo` is not supported with tokens"),
        (json!({"prompt": null}), "`prompt` is missing"),
        (json!({"best_of": 2}), "`best_of`: only 1 is supported"),
        (json!({"max_tokens": 0}), "`max_tokens` is not a whole number from 1"),
    ] {
        let mut body = json!({"model": "words", "prompt": "a"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(complete(&Script::new(), body).await.refused(400), message);
    }
}
