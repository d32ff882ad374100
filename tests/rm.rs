//! mlxk-rm: what goes, what stays, and what is said before.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::env::{COMMIT, Env, records};

#[test]
fn a_whole_name_removes_the_model() {
    let env = Env::with_three();
    let record = &env.run("mlxk-rm").args(["mlx-community/Good-4bit"]).records()[0];
    assert_eq!(
        (&record["name"], &record["action"]),
        (&json!("mlx-community/Good-4bit"), &json!("deleted"))
    );
    assert!(!env.hub().join("models--mlx-community--Good-4bit").exists());
    assert!(env.hub().join("models--org--Strange").exists());
    let text = env.run("mlxk-rm").args(["--human", "org/Strange"]).ok();
    assert!(text.starts_with("rm: org/Strange — deleted: freed 4.3KB ("), "{text}");
}

#[test]
fn part_of_a_name_needs_force() {
    let env = Env::with_three();
    let before = env.files();
    let ended = env.run("mlxk-rm").args(["Good"]).end();
    ended.refused(1, "mlxk-rm: Good: would remove mlx-community/Good-4bit, 4.3KB");
    assert!(ended.stderr().contains("\nhint: give the whole name, or --force"));
    let data = &env.run("mlxk-rm").args(["Good"]).envelope(0)["data"];
    assert_eq!(
        (&data["action"], &data["requires_confirmation"]),
        (&json!("requires_confirmation"), &json!(true))
    );
    assert_eq!(env.files(), before);
    env.run("mlxk-rm").args(["-f", "Good"]).ok();
    assert!(!env.hub().join("models--mlx-community--Good-4bit").exists());
}

#[test]
fn a_dry_run_tells_the_bytes_and_touches_nothing() {
    let env = Env::with_three();
    let before = env.files();
    let dry = &env.run("mlxk-rm").args(["-n", "Good"]).records()[0];
    assert_eq!(dry["action"], "delete_model");
    assert_eq!(env.files(), before);
    let done = &env.run("mlxk-rm").args(["-f", "Good"]).records()[0];
    assert_eq!(done["freed_bytes"], dry["freed_bytes"]);
    let bytes: u64 = before
        .iter()
        .filter(|(path, _)| path.to_string_lossy().contains("Good-4bit/blobs/"))
        .map(|(_, size)| size)
        .sum();
    assert_eq!(done["freed_bytes"], bytes + COMMIT.len() as u64, "the blobs, and refs/main");
}

#[test]
fn a_revision_goes_alone() {
    let env = Env::new();
    let other = "2".repeat(40);
    env.model("org/m").commit(&other).write();
    env.model("org/m").write();
    let record = &env.run("mlxk-rm").args(["org/m@222"]).records()[0];
    assert_eq!((&record["action"], &record["hash"]), (&json!("deleted"), &json!(other)));
    assert_eq!(env.run("mlxk-ls").args(["-qa", "--revisions"]).ok(), format!("org/m@{COMMIT}\n"));
    assert_eq!(env.run("mlxk-health").args(["org/m"]).end().status(), 0);
    env.model("org/m").commit(&other).write();
    let text = env.run("mlxk-rm").args(["--human", "org/m@222"]).ok();
    assert!(text.starts_with("rm: org/m@2222222 — deleted: freed "), "{text}");
}

#[test]
fn a_pattern_removes_every_model_of_such_a_name_if_forced() {
    let env = Env::with_three();
    env.model("org/test-1").write();
    env.model("org/test-2").write();
    let ended = env.run("mlxk-rm").args(["test-*"]).end();
    ended.refused(1, "mlxk-rm: test-*: would remove 2 models");
    let envelope = env.run("mlxk").args(["rm", "test-*", "--force"]).envelope(0);
    assert_eq!(envelope["data"]["results"].as_array().unwrap().len(), 2);
    let left = "mlx-community/Good-4bit\norg/Broken\norg/Strange\n";
    assert_eq!(env.run("mlxk-ls").args(["-qa"]).ok(), left);
}

#[test]
fn exactly_the_records_on_standard_input_go() {
    let env = Env::with_three();
    let listing = env.run("mlxk-ls").args(["-a", "-f", "health=unhealthy"]).ok();
    let removed = env.run("mlxk-rm").stdin(listing).records();
    assert_eq!(removed.len(), 1);
    assert_eq!(env.run("mlxk-ls").args(["-qa"]).ok(), "mlx-community/Good-4bit\norg/Strange\n");
}

#[test]
fn a_bad_line_does_not_stop_the_rest() {
    let env = Env::with_three();
    let ended = env.run("mlxk-rm").stdin("{oops\nnothing\norg/Strange\n").end();
    assert_eq!((ended.status(), records(&ended.stdout()).len()), (1, 1));
    assert!(
        ended.stderr().starts_with("mlxk-rm: standard input, line 1: not a JSON record"),
        "{ended:?}"
    );
    assert!(ended.stderr().contains("mlxk-rm: nothing: no such model\n"), "{ended:?}");
}

#[test]
fn a_workspace_is_never_removed() {
    let env = Env::new();
    let directory = env.model("mine").write_workspace();
    let before = env.files();
    for name in ["mine", directory.to_str().unwrap()] {
        let ended = env.run("mlxk-rm").args(["--force", name]).end();
        assert_eq!(ended.status(), 1);
        let error = &env.run("mlxk-rm").args(["--force", name]).envelope(1)["error"];
        assert_eq!(error["type"], "workspace_model");
    }
    assert_eq!(env.files(), before);
}

#[test]
fn pruning_takes_what_no_name_leads_to() {
    let env = Env::new();
    env.model("org/m").commit(&"2".repeat(40)).write();
    env.model("org/m").write();
    let blobs = env.hub().join("models--org--m/blobs");
    fs::write(blobs.join("abandoned.incomplete"), vec![0; 777]).unwrap();
    let old = fs::File::open(blobs.join("abandoned.incomplete")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    let before = env.files();
    let dry = &env.run("mlxk-rm").args(["--prune", "--dry-run"]).records()[0];
    assert_eq!(env.files(), before);
    let done = &env.run("mlxk-rm").args(["--prune"]).records()[0];
    assert_eq!(dry["freed_bytes"], done["freed_bytes"]);
    assert!(done["freed_bytes"].as_u64().unwrap() > 4777, "{done}");
    assert!(!blobs.join("abandoned.incomplete").exists());
    assert_eq!(env.run("mlxk-ls").args(["-qa", "--revisions"]).ok(), format!("org/m@{COMMIT}\n"));
    assert_eq!(env.run("mlxk-health").args(["org/m"]).end().status(), 0);
}

#[test]
fn without_a_cache_there_is_nothing_to_remove_from() {
    let env = Env::new();
    fs::remove_dir(env.hub()).unwrap();
    let error = &env.run("mlxk-rm").args(["--prune"]).envelope(1)["error"];
    assert_eq!(error["type"], "cache_not_found");
    env.model("mine").write_workspace();
    let error = &env.run("mlxk-rm").args(["./ws/mine"]).envelope(1)["error"];
    assert_eq!(error["type"], "workspace_model");
}
