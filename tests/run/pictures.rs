//! Pictures that go with a prompt.

use std::fs;

use serde_json::Value;

use super::tiny::data;
use crate::env::Env;

/// A home with a tiny model that takes pictures, as the workspace `seeing`, and its known answer.
fn seeing() -> (Env, Value) {
    let env = Env::new();
    let (from, to) = (data("vision/qwen2_5_vl"), env.workspaces().join("seeing"));
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let expected = fs::read(from.join("expected.json")).unwrap();
    (env, serde_json::from_slice(&expected).unwrap())
}

#[test]
fn an_image_is_shown_to_the_model() {
    let (env, expected) = seeing();
    let text = expected["messages"][0]["content"][1]["text"].as_str().unwrap();
    let picture = data("vision").join(expected["images"][0].as_str().unwrap());
    let picture = picture.to_str().unwrap();
    let options = ["--temperature", "0", "--max-tokens", "16", "--image", picture];
    let answer = env.run("mlxk-run").args(["seeing", text]).args(options).ok();
    let greedy = expected["greedy_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap());
    let words: Vec<String> = greedy.filter(|id| *id < 200).map(|id| format!("w{id}")).collect();
    assert_eq!(answer.trim(), words.join(" "));
}

#[test]
fn what_is_no_picture_is_refused() {
    let (env, _) = seeing();
    let text = env.workspaces().join("notes.png");
    fs::write(&text, "not a picture").unwrap();
    let path = text.to_str().unwrap();
    let told = |file: &str| {
        let ended = env.run("mlxk-run").args(["seeing", "--image", file, "w1"]).end();
        assert_ne!(ended.status(), 0);
        ended.stderr()
    };
    for file in [path, "nowhere.png"] {
        let error = told(file);
        assert!(error.contains(file), "{error}");
        assert_eq!(error.trim_end().lines().filter(|line| line.starts_with("mlxk-run")).count(), 1);
    }
}

#[test]
fn a_prompt_cache_is_refused_before_the_model_runs() {
    let (env, _) = seeing();
    let args = ["seeing", "--image", "a.png", "--prompt-cache", "cache", "w1"];
    let ended = env.run("mlxk-run").args(args).end();
    let message =
        "mlxk-run: the argument '--image <FILE>' cannot be used with '--prompt-cache <FILE>'";
    ended.refused(2, message);
}
