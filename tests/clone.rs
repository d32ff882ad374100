//! `mlxk-clone`: a workspace out of the Hub or the cache.

use std::fs;

use serde_json::{Value, json};

use crate::env::safetensors;
use crate::pull::{at, sides};

#[test]
fn a_clone_is_a_clean_and_healthy_workspace() {
    let (env, hub) = sides();
    let text = at(&env, &hub, "mlxk-clone").args(["org/M", "--human"]).ok();
    let made = env.workspaces().canonicalize().unwrap().join("M");
    assert_eq!(text, format!("clone: org/M → {} (✓ healthy)\n", made.display()));
    let shown = &env.run("mlxk-show").args(["./ws/M"]).records()[0];
    assert_eq!(shown["clean"], true);
    assert_eq!(shown["origin"], "org/M");
    assert!(!env.hub().join("models--org--M").exists(), "the cache is left alone");
    fs::write(made.join("config.json"), "{\"model_type\": \"qwen3\"}").unwrap();
    assert_eq!(env.run("mlxk-show").args(["./ws/M"]).records()[0]["clean"], false);
}

#[test]
fn records_lead_on_to_other_programs() {
    let (env, hub) = sides();
    let record = at(&env, &hub, "mlxk-clone").args(["org/M", "./copy"]).ok();
    let health = env.run("mlxk-health").stdin(record).records();
    assert_eq!(health[0]["health"], "healthy");
}

#[test]
fn revisions_select_and_offline_the_cache_will_do() {
    let (env, hub) = sides();
    hub.repo("org/M").branch("v1").file("notes.txt", "new");
    at(&env, &hub, "mlxk-clone").args(["org/M@v1", "./old"]).ok();
    at(&env, &hub, "mlxk-clone").args(["org/M", "--branch", "main", "./new"]).ok();
    let has_notes = |name: &str| env.home().join(name).join("notes.txt").exists();
    assert!(!has_notes("old") && has_notes("new"));
    at(&env, &hub, "mlxk-pull").args(["org/M"]).ok();
    hub.forget();
    at(&env, &hub, "mlxk-clone").args(["m", "./off"]).env("HF_HUB_OFFLINE", "1").ok();
    assert!(has_notes("off"));
    assert_eq!(hub.requests().len(), 0);
    let both = at(&env, &hub, "mlxk-clone").args(["org/M@v1", "--branch", "main", "./x"]).end();
    both.refused(2, "mlxk-clone: org/M@v1: two revisions, v1 and main");
}

#[test]
fn places_that_are_taken_are_refused_before_anything_comes() {
    let (env, hub) = sides();
    fs::create_dir_all(env.home().join("full/x")).unwrap();
    let ended = at(&env, &hub, "mlxk-clone").args(["org/M", "./full"]).end();
    assert!(ended.stderr().contains("exists and is not empty"), "{ended:?}");
    let envelope: Value = at(&env, &hub, "mlxk-clone").args(["org/M", "./hf/x"]).envelope(1);
    assert_eq!(envelope["error"]["type"], "invalid_target");
    assert!(hub.requests().is_empty());
    let ended = at(&env, &hub, "mlxk-clone").args(["org/none", "./x"]).end();
    assert!(ended.stderr().contains("org/none: no such model"), "{ended:?}");
    assert!(!env.home().join("x").exists());
    let quiet = ["org/M", "./y", "--quiet", "--no-health-check", "--human"];
    let text = at(&env, &hub, "mlxk-clone").args(quiet).ok();
    assert!(text.ends_with("/y\n"), "{text}");
    let envelope = at(&env, &hub, "mlxk-clone").args(["org/M", "./z"]).envelope(0);
    assert_eq!(envelope["data"]["clone_status"], "success");
    assert_eq!(envelope["data"]["health"], "healthy");
}

#[test]
fn a_dry_run_says_what_would_come_and_makes_nothing() {
    let (env, hub) = sides();
    at(&env, &hub, "mlxk-pull").args(["org/M", "--include", "*.json"]).ok();
    let before = env.files();
    let text = at(&env, &hub, "mlxk-clone").args(["-n", "org/M", "./new", "--human"]).ok();
    assert!(text.contains("/new — would fetch 2 files, 20.0MB and copy 3 files, "), "{text}");
    assert!(text.contains("    20.0MB  large.bin\n"), "{text}");
    let args = ["-n", "org/M", "./new", "--include", "*.safetensors", "--include", "*.json"];
    let record = &at(&env, &hub, "mlxk-clone").args(args).records()[0];
    let planned = json!([{"path": "model.safetensors", "size_bytes": safetensors().len()}]);
    assert_eq!((&record["planned_files"], &record["clone_status"]), (&planned, &json!("planned")));
    assert_eq!(record["hash"], *hub.repo("org/M").commit());
    let envelope = at(&env, &hub, "mlxk-clone").args(["-n", "org/M", "./new"]).envelope(0);
    assert_eq!(envelope["data"]["clone_status"], "planned");
    assert_eq!(env.files(), before);
}

#[test]
fn names_come_from_standard_input_and_patterns_choose_files() {
    let (env, hub) = sides();
    hub.repo("org/N").file("config.json", "{}").file("notes.txt", "x");
    let args = ["--include", "*.json", "--exclude", "tokenizer*", "--no-health-check"];
    let names = "org/M\n{\"name\": \"org/N\", \"mark\": 1}\n";
    let records = at(&env, &hub, "mlxk-clone").args(args).stdin(names).records();
    assert_eq!((records.len(), &records[1]["mark"]), (2, &json!(1)));
    for name in ["M", "N"] {
        let made = fs::read_dir(env.workspaces().join(name)).unwrap();
        let mut made: Vec<_> = made.map(|entry| entry.unwrap().file_name()).collect();
        made.sort();
        assert_eq!(made, [".mlxk_workspace.json", "config.json"]);
    }
    let again = at(&env, &hub, "mlxk-clone").args(["-"]).stdin(records[0].to_string()).end();
    assert!(again.stderr().contains("a workspace already"), "{again:?}");
    at(&env, &hub, "mlxk-clone").end().refused(2, "mlxk-clone: no model named");
}

#[test]
fn a_wrong_call_is_told_from_a_failure() {
    let (env, hub) = sides();
    let clone =
        |args: &[&str]| at(&env, &hub, "mlxk-clone").env("MLXK_WORKSPACE_HOME", "").args(args);
    clone(&["org/M"]).end().refused(2, "mlxk-clone: org/M: no directory to clone into");
    clone(&["./org/M", "copy"])
        .end()
        .refused(2, "mlxk-clone: ./org/M: a path, not the name of a model on the Hub");
    clone(&["org/M/x", "copy"])
        .end()
        .refused(2, "mlxk-clone: org/M/x: not the name of a model on the Hub");
    let envelope = clone(&["org/M@v1", "copy", "--branch", "v2"]).envelope(2);
    assert_eq!(envelope["error"]["type"], "validation_error");
    assert_eq!(hub.requests().len(), 0);
}

#[test]
fn the_url_of_a_page_is_a_name() {
    let (env, hub) = sides();
    hub.repo("org/M").branch("v1");
    let url = "https://huggingface.co/org/M/tree/v1";
    at(&env, &hub, "mlxk-clone").args([url, "./copy"]).ok();
    assert!(env.home().join("copy/config.json").exists());
    let pull = |url: &str| at(&env, &hub, "mlxk-pull").args([url]).end();
    assert_eq!(pull("hf.co/org/M").status(), 0);
    pull("https://huggingface.co/datasets/org/M")
        .refused(1, "mlxk-pull: https://huggingface.co/datasets/org/M: the page of something else");
}

#[test]
fn a_cache_without_links_is_cloned_without_the_hub() {
    let (env, hub) = sides();
    at(&env, &hub, "mlxk-pull").args(["org/M"]).ok();
    let repo = env.hub().join("models--org--M");
    let snapshot = repo.join("snapshots").join(hub.repo("org/M").commit());
    for entry in fs::read_dir(&snapshot).unwrap() {
        let link = entry.unwrap().path();
        let content = fs::read(&link).unwrap();
        fs::remove_file(&link).unwrap();
        fs::write(&link, content).unwrap();
    }
    fs::remove_dir_all(repo.join("blobs")).unwrap();
    let offline = at(&env, &hub, "mlxk-clone").env("HF_HUB_OFFLINE", "1");
    let record = &offline.args(["org/M", "./copy"]).records()[0];
    assert_eq!(record["health"], "healthy", "{record}");
}
