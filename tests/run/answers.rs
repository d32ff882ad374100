//! One prompt and its answer: as text, as a record, as it comes.

use std::fs;

use serde_json::json;

use super::tiny::Tiny;

#[test]
fn the_answer_is_the_known_one_and_a_cut_is_told() {
    let tiny = Tiny::new();
    for args in [&["--max-tokens", "24"][..], &["--no-stream", "--max-tokens", "24"]] {
        let ended = tiny.run(args).args([&tiny.prompt]).end();
        assert_eq!((ended.status(), ended.stdout()), (0, format!("{}\n", tiny.greedy)));
        assert_eq!(ended.stderr(), "[Output cut at 24 tokens: --max-tokens]\n");
    }
}

#[test]
fn one_prompt_gives_one_record_or_the_envelope() {
    let tiny = Tiny::new();
    let args = ["--max-tokens", "2", &tiny.prompt];
    let record = &tiny.run(&["--ndjson"]).args(args).records()[0];
    assert_eq!(
        (&record["prompt"], &record["response"]),
        (&json!(tiny.prompt), &json!(tiny.words(2)))
    );
    let data = tiny.run(&args).envelope(0)["data"].clone();
    assert_eq!((&data["model"], &data["prompt"]), (&json!("tiny"), &json!(tiny.prompt)));
    assert_eq!(
        (&data["response"], &data["finish_reason"]),
        (&json!(tiny.words(2)), &json!("length"))
    );
    let error = tiny.run(&[" "]).envelope(1)["error"].clone();
    assert_eq!(error["type"], "validation_error");
}

#[test]
fn an_answer_that_looks_like_an_error_is_an_answer() {
    let tiny = Tiny::new();
    let path = tiny.env.workspaces().join("tiny/tokenizer.json");
    let tokenizer = fs::read_to_string(&path).unwrap().replace("\"w317\"", "\"Error: \"");
    fs::write(&path, tokenizer).unwrap();
    assert_eq!(tiny.run(&["--max-tokens", "1", &tiny.prompt]).ok(), "Error: \n");
}

#[test]
fn the_answer_fills_the_context_and_a_longer_prompt_is_refused() {
    let tiny = Tiny::new();
    tiny.config("max_position_embeddings", json!(24));
    let ended = tiny.run(&[&tiny.prompt]).end();
    assert_eq!(ended.stdout(), format!("{}\n", tiny.words(3)));
    assert_eq!(ended.stderr(), "[Output cut at 3 tokens: the model's context is full]\n");
    tiny.config("max_position_embeddings", json!(20));
    let message = "mlxk-run: the prompt has 21 tokens, and the model's context holds 20";
    tiny.run(&[&tiny.prompt]).end().refused(1, message);
}

/// Bytes of characters that come in pieces, and a byte that begins none.
const BYTES: [&str; 9] =
    ["caf", "<0xC3>", "<0xA9>", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "!", "<0xFF>"];

#[test]
fn a_streamed_answer_is_the_unstreamed_one_byte_for_byte_wherever_it_is_cut() {
    let tiny = Tiny::new();
    tiny.says(&BYTES);
    assert_eq!(tiny.run(&[&tiny.prompt]).ok(), "café😀!\u{fffd}\n");
    for cut in 1..=BYTES.len() {
        let cut = cut.to_string();
        let args = ["--max-tokens", &cut, &tiny.prompt];
        let whole = tiny.run(&["--no-stream"]).args(args).ok();
        assert_eq!(tiny.run(&args).ok(), whole, "{cut}");
        let record = &tiny.run(&["--ndjson"]).args(args).records()[0];
        assert_eq!(record["response"], whole.trim_end_matches('\n'), "{cut}");
    }
}

#[test]
fn a_stop_string_over_several_tokens_is_never_seen() {
    let tiny = Tiny::new();
    tiny.says(&["Hel", "lo", " W", "or", "ld", "<0xC3>", "<0xA9>", "!"]);
    for (stop, left) in [
        (&["--stop", "o Wo"][..], "Hell"),
        (&["--stop", "d\u{e9}"], "Hello Worl"),
        (&["--stop", "xyz", "--stop", "or"], "Hello W"),
        (&["--stop", "ld?"], "Hello World\u{e9}!"),
    ] {
        for how in [&[][..], &["--no-stream"]] {
            let answer = tiny.run(stop).args(how).args([&tiny.prompt]).ok();
            assert_eq!(answer, format!("{left}\n"), "{stop:?}");
        }
    }
}
