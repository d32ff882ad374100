//! mlxk-health: the verdict, as text, as records, and as exit status.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::env::{COMMIT, Env, records};

#[test]
fn the_exit_status_is_the_answer() {
    let env = Env::with_three();
    let status = |args: &[&str]| env.run("mlxk-health").args(args).end().status();
    assert_eq!(status(&["Good"]), 0);
    assert_eq!(status(&["Strange"]), 0, "whole, though it cannot run");
    assert_eq!(status(&["Broken"]), 1);
    assert_eq!(status(&["nothing"]), 1);
    assert_eq!(status(&[]), 1);
    assert_eq!(status(&["--nonsense"]), 2);
}

#[test]
fn the_text_is_as_it_always_was() {
    let env = Env::with_three();
    env.model("mine").write_workspace();
    let health = |args: &[&str]| env.run("mlxk-health").args(["--human"]).args(args).end().stdout();
    assert_eq!(
        health(&[]),
        "Summary: total 4, healthy 3, unhealthy 1\n\
         healthy   mine — Model is healthy\n\
         healthy   mlx-community/Good-4bit — Model is healthy\n\
         healthy   org/Strange — Model is healthy\n\
         unhealthy org/Broken — No model weights found\n"
    );
    assert_eq!(health(&["mine"]), "healthy   mine — Model is healthy\n");
    assert_eq!(health(&["nothing"]), "Summary: total 0, healthy 0, unhealthy 0\n");
}

#[test]
fn records_pass_through_with_the_verdict() {
    let env = Env::with_three();
    let input = format!(
        "{{\"name\":\"org/Strange\",\"hash\":\"{COMMIT}\",\"health\":\"?\",\"mark\":{{\"a\":1}}}}\n\
         org/Broken\n"
    );
    let ended = env.run("mlxk-health").stdin(input).end();
    let records = records(&ended.stdout());
    assert_eq!(records[0]["mark"], json!({"a": 1}));
    assert_eq!(
        (&records[0]["health"], &records[0]["runtime_compatible"]),
        (&json!("healthy"), &json!(false))
    );
    assert!(records[0]["reason"].as_str().unwrap().starts_with("Model type 'quux'"));
    assert_eq!(records[1]["reason"], "No model weights found");
    assert_eq!(ended.status(), 1);
}

#[test]
fn a_listing_can_be_checked_whole() {
    let env = Env::with_three();
    let listing = env.run("mlxk-ls").args(["--all"]).ok();
    let ended = env.run("mlxk-health").stdin(listing.clone()).end();
    assert_eq!(ended.stdout(), listing, "nothing that a listing says changes");
}

#[test]
fn an_empty_pipe_checks_nothing_and_no_pipe_everything() {
    let env = Env::with_three();
    assert_eq!(env.run("mlxk-health").stdin("").ok(), "");
    assert_eq!(records(&env.run("mlxk-health").end().stdout()).len(), 3);
    assert_eq!(records(&env.run("mlxk-health").args(["-"]).stdin("Good\n").ok()).len(), 1);
}

#[test]
fn what_is_not_there_was_not_checked() {
    let env = Env::with_three();
    let ended = env.run("mlxk-health").args(["nothing", "--json"]).end();
    let envelope: serde_json::Value = serde_json::from_str(&ended.stdout()).unwrap();
    assert_eq!(envelope["data"]["summary"]["total"], 0);
    assert!(ended.stderr().starts_with("mlxk-health: nothing: no such model\n"));
    assert_eq!(ended.status(), 1);
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives every blob of the snapshot the name that its content has.
fn name_blobs(snapshot: &Path) {
    for entry in fs::read_dir(snapshot).unwrap() {
        let link = entry.unwrap().path();
        let name = sha256(&fs::read(&link).unwrap());
        let blob = link.canonicalize().unwrap();
        fs::rename(&blob, blob.with_file_name(&name)).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(format!("../../blobs/{name}"), &link).unwrap();
    }
}

#[test]
fn verifying_names_the_bad_files_and_denies() {
    let env = Env::new();
    let snapshot = env.model("org/Good").quantized().write();
    name_blobs(&snapshot);
    let good = env.run("mlxk-health").args(["--verify"]).records();
    assert_eq!((&good[0]["verified"], &good[0]["bad_files"]), (&json!(true), &json!([])));
    let weights = snapshot.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let expected = sha256(&bytes);
    *bytes.last_mut().unwrap() = 1;
    fs::write(&weights, &bytes).unwrap();
    assert_eq!(env.run("mlxk-health").end().status(), 0, "no header tells of it");
    let ended = env.run("mlxk-health").args(["--verify"]).end();
    let bad = &records(&ended.stdout())[0];
    let reason = "model.safetensors does not have the content that it should";
    assert_eq!(
        (&bad["name"], &bad["hash"], &bad["health"], &bad["reason"], &bad["verified"]),
        (&json!("org/Good"), &json!(COMMIT), &json!("unhealthy"), &json!(reason), &json!(false))
    );
    let file = json!({
        "path": "model.safetensors", "blob": expected, "expected": expected,
        "found": sha256(&bytes), "reason": "content",
    });
    assert_eq!(bad["bad_files"], json!([file]));
    assert_eq!((ended.status(), ended.stderr().as_str()), (1, ""));
    let text = env.run("mlxk-health").args(["--verify", "--human"]).end().stdout();
    assert_eq!(text, format!("unhealthy org/Good — {reason}\n          {reason}\n"));
    let envelope = env.run("mlxk-health").args(["--verify"]).envelope(1);
    assert_eq!(envelope["data"]["unhealthy"][0]["reason"], reason);
}

#[test]
fn what_cannot_be_verified_is_said_to_be_so() {
    let env = Env::new();
    env.model("mine").write_workspace();
    let ended = env.run("mlxk-health").args(["--verify", "mine"]).end();
    assert_eq!(records(&ended.stdout())[0]["verified"], json!(false));
    assert!(ended.stderr().starts_with("mlxk-health: mine: not verified: 4 files, config.json"));
    assert_eq!(ended.status(), 0, "nothing is known to be wrong");
}

#[test]
fn models_that_libraries_fetched_into_a_workspace_are_checked_on_request() {
    let env = Env::new();
    let sentinel = json!({"managed": false}).to_string();
    let mine = env.model("mine").file(".mlxk_workspace.json", sentinel).write_workspace();
    let inner = Env::new();
    inner.model("org/tokenizer").without("model.safetensors").write();
    fs::create_dir(mine.join(".hf_cache")).unwrap();
    fs::rename(inner.hub(), mine.join(".hf_cache/hub")).unwrap();
    let text = env.run("mlxk-health").args(["--human", "--verbose", "mine"]).ok();
    let line = text.lines().nth(1).unwrap().trim();
    assert!(line.starts_with(".hf_cache: org/tokenizer — unhealthy, "), "{text}");
    let entry = &env.run("mlxk-health").args(["-v", "mine"]).envelope(0)["data"]["healthy"][0];
    assert_eq!(entry["hf_cache"][0]["name"], "org/tokenizer");
    assert_eq!(entry["managed"], false, "as its sentinel says");
    assert_eq!(env.run("mlxk-health").args(["mine"]).records()[0].get("hf_cache"), None);
}

#[test]
fn one_document_has_results_and_the_error() {
    let env = Env::with_three();
    let envelope = env.run("mlxk-health").args(["org", "Good", "nothing"]).envelope(1);
    assert_eq!(envelope["error"]["type"], "ambiguous_match");
    assert_eq!(envelope["data"]["summary"]["healthy_count"], 1);
    let envelope = env.run("mlxk-show").args(["Good", "nothing", "Strange"]).envelope(1);
    assert_eq!(envelope["error"]["type"], "model_not_found");
    assert_eq!(envelope["data"]["model"]["name"], "mlx-community/Good-4bit");
    assert_eq!(envelope["data"]["results"][1]["model"]["name"], "org/Strange");
}
