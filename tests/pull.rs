//! `mlxk-pull`: the cache as the Hub has it, and what is said of that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mlxk_testhub::{Access, Fault, Hub, OWNER, Rule};
use serde_json::Value;

use crate::env::{Env, Run, interrupted, program_path, safetensors};

/// A Hub with a healthy model of 20 MB, and a home.
pub fn sides() -> (Env, Hub) {
    let hub = Hub::start();
    hub.repo("org/M")
        .file("config.json", r#"{"model_type": "llama", "num_hidden_layers": 1}"#)
        .file("tokenizer.json", "{}")
        .file("tokenizer_config.json", r#"{"chat_template": "{{ messages }}"}"#)
        .file("model.safetensors", safetensors())
        .file("large.bin", vec![7; LARGE]);
    (Env::new(), hub)
}

const LARGE: usize = 20_000_000;

pub fn at(env: &Env, hub: &Hub, program: &str) -> Run {
    env.run(program).env("HF_ENDPOINT", hub.endpoint()).env("HF_HUB_DOWNLOAD_TIMEOUT", "1")
}

#[test]
fn a_model_comes_and_the_other_programs_know_it() {
    let (env, hub) = sides();
    let records = at(&env, &hub, "mlxk-pull").args(["org/M"]).records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["name"], "org/M");
    assert_eq!(records[0]["hash"], *hub.repo("org/M").commit());
    assert_eq!(records[0]["download_status"], "success");
    let health = env.run("mlxk-health").stdin(records[0].to_string()).records();
    assert_eq!(health[0]["health"], "healthy", "{health:?}");
    let verified = env.run("mlxk-health").args(["--verify", "org/M"]).records();
    assert_eq!(verified[0]["verified"], true, "{verified:?}");
    let text = at(&env, &hub, "mlxk-pull").args(["org/M", "--human"]).ok();
    let revision = &hub.repo("org/M").commit()[..7];
    assert_eq!(text, format!("pull: org/M — up to date, revision {revision}\n"));
}

#[test]
fn a_listing_is_brought_up_to_date() {
    let (env, hub) = sides();
    at(&env, &hub, "mlxk-pull").args(["org/M"]).ok();
    env.model("mine").write_workspace();
    hub.repo("org/M").file("tokenizer.json", "{\"new\": 1}");
    let listed = env.run("mlxk-ls").args(["--all"]).ok();
    let ended = at(&env, &hub, "mlxk-pull").stdin(listed).end();
    assert_eq!(ended.status(), 0, "{ended:?}");
    let record: Value = serde_json::from_str(&ended.stdout()).unwrap();
    assert_eq!(record["hash"], *hub.repo("org/M").commit());
    assert_eq!(record["fetched_bytes"], 10);
    assert!(ended.stderr().contains("a workspace, not changed"), "{ended:?}");
    let short = at(&env, &hub, "mlxk-pull").args(["m"]).envelope(0);
    assert_eq!(short["data"]["expanded_name"], "org/M");
    assert_eq!(short["data"]["download_status"], "already_exists");
}

#[test]
fn a_dry_run_says_what_would_come_and_fetches_nothing() {
    let (env, hub) = sides();
    let before = env.files();
    let text = at(&env, &hub, "mlxk-pull").args(["-n", "org/M", "--human"]).ok();
    assert!(text.contains("would fetch 5 files, 20.0MB"), "{text}");
    assert!(text.contains("    20.0MB  large.bin\n"), "{text}");
    let args = ["-n", "org/M", "--include", "*.json", "--exclude", "token*"];
    let records = at(&env, &hub, "mlxk-pull").args(args).records();
    assert_eq!(records[0]["planned_files"][0]["path"], "config.json");
    assert_eq!(records[0]["planned_files"].as_array().unwrap().len(), 1);
    assert_eq!(env.files(), before);
}

#[test]
fn refusals_name_the_model_and_leave_no_trace() {
    let (env, hub) = sides();
    hub.repo("org/Secret").access(Access::Gated).file("config.json", "{}");
    let before = env.files();
    let gated = at(&env, &hub, "mlxk-pull").args(["org/Secret"]).envelope(1);
    assert_eq!(gated["error"]["type"], "access_denied");
    assert_eq!(gated["data"]["download_status"], "access_denied");
    assert_eq!(gated["data"]["model"], "org/Secret");
    let said = at(&env, &hub, "mlxk-pull").args(["org/none", "a b", "org/M@v9"]).end();
    assert_eq!(said.status(), 1);
    for line in [
        "mlxk-pull: org/none: no such model on the Hub, or a private one",
        "mlxk-pull: a b: not the name of a model on the Hub",
        "mlxk-pull: org/M@v9: no such revision on the Hub",
    ] {
        assert!(said.stderr().lines().any(|said| said == line), "{said:?}");
    }
    at(&env, &hub, "mlxk-pull")
        .args(["org/M"])
        .env("HF_HUB_OFFLINE", "1")
        .end()
        .refused(1, "mlxk-pull: offline: HF_HUB_OFFLINE is set");
    at(&env, &hub, "mlxk-pull").end().refused(2, "mlxk-pull: no model named");
    assert_eq!(env.files(), before);
    at(&env, &hub, "mlxk-pull").args(["org/Secret"]).env("HF_TOKEN", OWNER).ok();
}

#[test]
fn one_failure_does_not_stop_the_others() {
    let (env, hub) = sides();
    let ended = at(&env, &hub, "mlxk-pull").stdin("org/none\norg/M\n").end();
    assert_eq!(ended.status(), 1);
    assert!(ended.stdout().contains("\"download_status\":\"success\""), "{ended:?}");
}

#[test]
fn what_went_bad_is_mended() {
    let (env, hub) = sides();
    at(&env, &hub, "mlxk-pull").args(["org/M"]).ok();
    let large = env.hub().join("models--org--M/snapshots").join(hub.repo("org/M").commit());
    let large = large.join("large.bin");
    fs::write(&large, vec![8; LARGE]).unwrap();
    hub.forget();
    let verified = env.run("mlxk-health").args(["--verify"]).end();
    assert_eq!(verified.status(), 1);
    let repaired =
        at(&env, &hub, "mlxk-pull").args(["--repair"]).stdin(verified.stdout()).records();
    assert_eq!(repaired[0]["download_status"], "success");
    assert_eq!(repaired[0]["fetched_bytes"], LARGE);
    assert_eq!(hub.served("/resolve-cache/"), 0, "nothing else is fetched");
    env.run("mlxk-health").args(["--verify"]).ok();
    let listed = env.run("mlxk-ls").args(["--all"]).ok();
    let ended = at(&env, &hub, "mlxk-pull").args(["--repair"]).stdin(listed).end();
    assert!(ended.stderr().contains("does not say which files are bad"), "{ended:?}");
}

#[test]
fn events_are_records_where_they_are_asked_for() {
    let (env, hub) = sides();
    hub.fault(Rule::on("large.bin").times(4), Fault::Cut { after: 1_000_000 });
    let records = at(&env, &hub, "mlxk-pull").args(["org/M", "--ndjson"]).records();
    let kinds: Vec<_> = records.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[0], "plan");
    for kind in ["begin", "retry", "done"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert_eq!(*kinds.last().unwrap(), "end");
    assert_eq!(records[0]["model"], "org/M");
    assert!(records[0].get("name").is_none(), "an event is no model");
}

#[test]
fn ctrl_c_keeps_what_came_and_says_so() {
    let (env, hub) = sides();
    hub.fault(Rule::on("/objects/"), Fault::Slow { rate: 1_000_000 });
    let mut command = env.command("mlxk-pull");
    command.arg("org/M").env("HF_ENDPOINT", hub.endpoint());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let late = Instant::now() + Duration::from_secs(20);
    while hub.served("/objects/") < 2_000_000 && Instant::now() < late {
        thread::sleep(Duration::from_millis(20));
    }
    let output = interrupted(child);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "mlxk-pull: interrupted\nhint: the same command goes on where it stopped\n");
    assert!(!env.hub().join("models--org--M/refs/main").exists());
    hub.behave();
    hub.forget();
    let record = &at(&env, &hub, "mlxk-pull").args(["org/M"]).records()[0];
    let objects = hub.served("/objects/");
    assert!(objects < LARGE as u64 - 1_000_000, "{objects}");
    assert_eq!(record["download_status"], "success");
}

#[test]
fn other_users_of_the_cache_can_take_its_locks_whatever_the_umask() {
    let (env, hub) = sides();
    let mut command = env.at_home(Command::new("sh"));
    command.args(["-c", "umask 077; exec \"$0\" org/M"]).arg(program_path("mlxk-pull"));
    command.env("HF_ENDPOINT", hub.endpoint()).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    let locks = fs::read_dir(env.hub().join(".locks/models--org--M")).unwrap();
    let modes: Vec<_> =
        locks.map(|lock| lock.unwrap().metadata().unwrap().permissions().mode() & 0o777).collect();
    assert_eq!(modes, [0o664; 6], "one for each file, and one for the revision");
}

#[test]
fn variables_in_the_place_of_the_cache_are_expanded() {
    let (env, hub) = sides();
    let place = at(&env, &hub, "mlxk-pull").env("HF_HUB_CACHE", "$WHERE/${WHAT}");
    place.env("WHERE", "~").env("WHAT", "c").args(["org/M"]).ok();
    assert!(env.home().join("~/c/models--org--M").exists(), "a value is not expanded again");
    assert!(!env.home().join("$WHERE").exists());
}

#[test]
fn a_disabled_token_is_not_sent() {
    let (env, hub) = sides();
    hub.repo("org/Secret").access(Access::Private).file("x", "x");
    let pull = || at(&env, &hub, "mlxk-pull").env("HF_TOKEN", OWNER).args(["org/Secret"]);
    pull().ok();
    hub.forget();
    assert_eq!(pull().env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1").end().status(), 1);
    assert!(hub.requests().iter().all(|request| request.authorization.is_none()));
}
