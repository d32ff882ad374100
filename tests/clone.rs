//! `mlxk-clone`: a workspace out of the Hub or the cache.

use std::fs;

use serde_json::Value;

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
    both.refused(1, "mlxk-clone: org/M@v1: two revisions, v1 and main");
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
