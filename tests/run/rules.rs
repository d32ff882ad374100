//! Answers that follow a schema or a grammar, with everything else that a request may want.

use std::fs;

use serde_json::{Value, json};

use super::tiny::{Tiny, read};

/// What JSON of the schema below is made of.
const PIECES: [&str; 16] =
    ["{", "}", "\"", ":", ",", "name", "age", "size", "big", "small", "1", "2", " ", "é", "[", "]"];

fn schema() -> Value {
    json!({"type": "object", "additionalProperties": false, "required": ["age", "size"],
        "properties": {"age": {"enum": [1, 2, 12]}, "size": {"enum": ["big", "small"]}}})
}

/// The tiny model, some of whose tokens are those pieces, and another one end.
fn tiny() -> Tiny {
    let tiny = Tiny::new();
    let mut tokenizer = read(&tiny.path("tokenizer.json"));
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for (n, piece) in PIECES.iter().enumerate() {
        vocabulary.remove(&format!("w{}", 300 + n));
        vocabulary.insert((*piece).to_owned(), json!(300 + n));
    }
    tokenizer["decoder"] = json!({"type": "Fuse"});
    tiny.file("tokenizer.json", &tokenizer);
    tiny.config("eos_token_id", json!(299));
    let twin = tiny.env.workspaces().join("twin");
    fs::create_dir_all(&twin).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(tiny.path(file), twin.join(file)).unwrap();
    }
    tiny
}

fn follows(text: &Value) {
    let answer: Value =
        serde_json::from_str(text.as_str().unwrap()).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(2), "{answer}");
    assert!([1, 2, 12].iter().any(|age| answer["age"] == *age), "{answer}");
    assert!(["big", "small"].iter().any(|size| answer["size"] == *size), "{answer}");
}

#[test]
fn files_with_a_schema_or_a_grammar_bind_the_answer() {
    let tiny = tiny();
    let file = tiny.env.home().join("rules");
    let path = file.to_str().unwrap();
    fs::write(&file, schema().to_string()).unwrap();
    let known = tiny.run(&["--json-schema", path, "w1"]).ok();
    follows(&json!(known));
    for seed in ["1", "2"] {
        let hot = ["--json-schema", path, "--temperature", "3", "--seed", seed, "w1"];
        follows(&json!(tiny.env.run("mlxk-run").args(["tiny"]).args(hot).ok()));
    }
    fs::write(&file, "start: \"[\" /[12]{3}/ \"é\" \"]\"").unwrap();
    let answer = tiny.run(&["--grammar", path, "w1"]).ok();
    assert!(
        answer.starts_with('[') && answer.ends_with("é]\n") && answer.chars().count() == 7,
        "{answer}"
    );
}

#[test]
fn rules_go_with_batches_drafts_and_all_that_chooses_tokens() {
    let tiny = tiny();
    let grammar = "start: \"1\" \",\" /[12]{2}/ \",\" \"2\"";
    let free = json!({"id": 0, "prompt": "w3 w9", "max_tokens": 7, "seed": 4});
    let requests = [
        free.clone(),
        json!({"id": 1, "prompt": "w1", "json_schema": schema(), "seed": 1}),
        json!({"id": 2, "prompt": "w1 w2", "json_schema": schema(), "seed": 2, "temperature": 2,
            "top_k": 5, "top_p": 0.9, "min_p": 0.01, "xtc_probability": 0.5,
            "repetition_penalty": 1.2, "presence_penalty": 0.1, "logprobs": 2}),
        json!({"id": 3, "prompt": "w1", "grammar": grammar, "temperature": 0}),
        json!({"id": 4, "prompt": "w1", "grammar": grammar, "stop": "1,", "temperature": 0}),
        json!({"id": 5, "prompt": "w1", "json_schema": schema(), "max_tokens": 2, "temperature": 0}),
    ];
    let alone: Vec<Value> =
        requests.iter().map(|r| tiny.requests(&[], std::slice::from_ref(r))[0].clone()).collect();
    for how in [
        &[][..],
        &["--batch", "3"],
        &["--draft-model", "twin"],
        &["--draft-model", "twin", "--batch", "1"],
    ] {
        let answers = tiny.requests(&[&["--ordered"], how].concat(), &requests);
        for (answer, alone) in answers.iter().zip(&alone) {
            assert_eq!(answer["response"], alone["response"], "{how:?}");
            assert_eq!(answer["finish_reason"], alone["finish_reason"], "{how:?}");
        }
        follows(&answers[1]["response"]);
        follows(&answers[2]["response"]);
        let tops = answers[2]["logprobs"].as_array().unwrap().iter();
        let tops = tops.map(|token| token["top"].as_array().unwrap().len());
        assert_eq!(tops.max(), Some(2), "what rules bar has no probability to tell");
        assert_eq!(answers[3]["response"].as_str().unwrap().len(), 6);
        assert_eq!(
            (&answers[4]["response"], &answers[4]["finish_reason"]),
            (&json!(""), &json!("stop"))
        );
        assert_eq!(answers[5]["finish_reason"], "length");
    }
}

#[test]
fn rules_go_with_quantised_bounded_and_stored_memories() {
    let tiny = tiny();
    let file = tiny.env.home().join("schema");
    fs::write(&file, schema().to_string()).unwrap();
    let cache = tiny.env.home().join("cache");
    let rules = ["--json-schema", file.to_str().unwrap(), "w1 w2 w3"];
    for how in [&["--max-kv-size", "6"][..], &["--prompt-cache", cache.to_str().unwrap()]] {
        for _ in 0..2 {
            follows(&json!(tiny.run(how).args(rules).ok()));
        }
    }
    assert!(cache.exists());
}
