//! mlxk-push: a workspace to the Hub and back, and what it refuses before it asks anybody.

use std::fs;

use mlxk_testhub::{Access, Hub, OWNER};
use rexpect::session::spawn_command;
use serde_json::json;

use crate::env::{Env, Run, safetensors};

fn with_hub(run: Run, hub: &Hub) -> Run {
    run.env("HF_ENDPOINT", hub.endpoint()).env("HF_TOKEN", OWNER)
}

/// The program of this name, at this Hub.
fn tool(env: &Env, hub: &Hub, program: &str, args: &[&str]) -> Run {
    with_hub(env.run(program), hub).args(args)
}

#[test]
fn what_is_cloned_changed_and_pushed_is_what_another_pulls() {
    let (here, there, hub) = (Env::new(), Env::new(), Hub::start());
    let config = r#"{"model_type": "llama", "num_hidden_layers": 1}"#;
    hub.repo("org/M").file("config.json", config).file("sub/notes.txt", "notes");
    hub.repo("org/M").file("tokenizer.json", "{}").file("model.safetensors", safetensors());
    hub.repo("org/M").file("tokenizer_config.json", r#"{"chat_template": "{{ messages }}"}"#);
    tool(&here, &hub, "mlxk-clone", &["org/M", "./mine"]).ok();
    let mine = here.home().join("mine");
    fs::write(mine.join("README.md"), "# Mine\n").unwrap();
    fs::write(mine.join("tokenizer.json"), "[]").unwrap();
    fs::remove_file(mine.join("sub/notes.txt")).unwrap();
    let args = ["--private", "--create", "./mine", "me/Mine", "--commit", "Mine now"];
    let records = tool(&here, &hub, "mlxk-push", &args).records();
    assert_eq!(records[0]["change_summary"], json!({"added": 5, "modified": 0, "deleted": 0}));
    assert_eq!(
        (&records[0]["name"], &records[0]["created_repo"]),
        (&json!("me/Mine"), &json!(true))
    );
    let pulled = tool(&there, &hub, "mlxk-pull", &["me/Mine"]).records();
    assert_eq!(pulled[0]["hash"], records[0]["commit_sha"]);
    let commit = pulled[0]["hash"].as_str().unwrap();
    let snapshot = there.hub().join("models--me--Mine/snapshots").join(commit);
    let files = ["README.md", "config.json", "model.safetensors", "tokenizer.json"];
    for file in files.into_iter().chain(["tokenizer_config.json"]) {
        assert_eq!(fs::read(snapshot.join(file)).unwrap(), fs::read(mine.join(file)).unwrap());
    }
    assert!(!snapshot.join(".mlxk_workspace.json").exists() && !snapshot.join("sub").exists());
    let verified = there.run("mlxk-health").args(["--verify", "me/Mine"]).records();
    assert_eq!(verified[0]["verified"], true);
    // A change goes up and comes down again.
    fs::write(mine.join("README.md"), "# Mine, second\n").unwrap();
    let text = ["--private", "--human", "./mine", "me/Mine"];
    let said = tool(&here, &hub, "mlxk-push", &text).ok();
    assert!(said.starts_with("push: me/Mine@main — commit "), "{said}");
    assert!(said.ends_with(" (+0 ~1 -0)\n"), "{said}");
    let said = tool(&here, &hub, "mlxk-push", &text).ok();
    assert_eq!(said, "push: me/Mine@main — no changes\n");
    tool(&there, &hub, "mlxk-pull", &["me/Mine"]).ok();
    let shown = there.run("mlxk-ls").args(["--all"]).records();
    let snapshot = snapshot.with_file_name(shown[0]["hash"].as_str().unwrap());
    assert_eq!(fs::read_to_string(snapshot.join("README.md")).unwrap(), "# Mine, second\n");
}

#[test]
fn a_look_needs_nobody_and_a_push_a_token() {
    let env = Env::new();
    env.model("mine").quantized().write_workspace();
    let look = || env.run("mlxk-push").env("HF_ENDPOINT", "http://127.0.0.1:9");
    let record = &look().args(["--check-only", "mine"]).records()[0];
    assert_eq!(record["workspace_health"]["healthy"], true);
    assert_eq!(record["workspace_health"]["weights"]["formats"], json!(["safetensors"]));
    look().args(["--check-only", "mine", "org/name"]).envelope(0);
    fs::remove_file(env.workspaces().join("mine/model.safetensors")).unwrap();
    let ended = look().args(["--check-only", "--human", "mine"]).end();
    assert_eq!(ended.status(), 1);
    let last = "  error: there are no weights\n";
    assert!(ended.stdout().contains("mine — unhealthy, 3 files") && ended.stdout().ends_with(last));
    let ended = look().args(["--private", "mine", "org/name"]).end();
    ended.refused(1, "mlxk-push: org/name: a push needs a token, and there is none");
    let envelope = look().args(["--private", "mine", "org/name"]).envelope(1);
    assert_eq!(envelope["error"]["type"], "auth_error");
}

#[test]
fn what_is_meant_must_be_said() {
    let (env, hub) = (Env::new(), Hub::start());
    env.model("mine").write_workspace();
    env.model("mine-too").write_workspace();
    let cached = env.model("org/Cached").write();
    let push = |args: &[&str]| tool(&env, &hub, "mlxk-push", args).end();
    let neither = push(&["mine", "org/name"]);
    assert!(
        neither.status() == 2 && neither.stderr().contains("<--private|--public|"),
        "{neither:?}"
    );
    assert_eq!(push(&["--private", "mine"]).status(), 2, "no repository");
    let home = env.workspaces();
    let beginning = home.join("min");
    let message = format!("mlxk-push: {}: ambiguous: matches 2 workspaces", beginning.display());
    push(&["--private", beginning.to_str().unwrap(), "org/name"]).refused(1, &message);
    push(&["--private", "absent", "org/name"]).refused(1, "mlxk-push: absent: no such directory");
    let refused = push(&["--private", cached.to_str().unwrap(), "org/name"]);
    assert!(refused.stderr().contains("lies inside the Hugging Face cache"), "{refused:?}");
    hub.repo("org/Open").file("x", "x");
    let refused = push(&["--private", "mine", "org/Open"]);
    refused.refused(1, "mlxk-push: org/Open: the repository is public: everybody would see it");
    let dry = tool(&env, &hub, "mlxk-push", &["-n", home.join("mine-t").to_str().unwrap(), "o/n"]);
    assert_eq!(dry.records()[0]["would_create_repo"], true);
    hub.repo("org/Mine").access(Access::Private).file("x", "x");
    let args = ["--private", "--delete-missing", "-n", "--human", "mine", "org/Mine"];
    let said = tool(&env, &hub, "mlxk-push", &args).ok();
    assert!(said.starts_with("push: org/Mine@main — dry-run: +4 ~0 -1\n"), "{said}");
    assert!(said.contains("\n  + config.json\n") && said.ends_with("\n  - x\n"), "{said}");
}

#[test]
fn what_looks_like_a_secret_is_sent_only_if_that_is_meant() {
    let (env, hub) = (Env::new(), Hub::start());
    env.model("mine").file(".env", "A=1").file("id_rsa", "k").write_workspace();
    let checked = tool(&env, &hub, "mlxk-push", &["--check-only", "mine"]).end();
    assert_eq!(checked.status(), 0, "a warning");
    for path in [".env", "id_rsa"] {
        assert!(checked.stdout().contains(&format!("\"path\":\"{path}\"")), "{checked:?}");
    }
    let args = ["--private", "--create", "mine", "org/Mine"];
    let refused = tool(&env, &hub, "mlxk-push", &args).end();
    let message = "mlxk-push: org/Mine: not pushed: files that may hold secrets: .env, id_rsa";
    refused.refused(1, message);
    assert_eq!(hub.requests().len(), 0);
    for (answer, exit) in [("n", ", 1)"), ("y", ", 0)")] {
        let mut command = env.command("mlxk-push");
        command.env("HF_ENDPOINT", hub.endpoint()).env("HF_TOKEN", OWNER).args(args);
        let mut terminal = spawn_command(command, Some(30_000)).unwrap();
        terminal.exp_string("Send them to org/Mine? [y/N]").unwrap();
        terminal.send_line(answer).unwrap();
        terminal.exp_eof().unwrap();
        let end = format!("{:?}", terminal.process().wait().unwrap());
        assert!(end.ends_with(exit), "{answer}: {end}");
    }
    env.model("mine").file("prod.pem", "k").write_workspace();
    let args = ["--private", "--allow-secrets", "mine", "org/Mine"];
    let records = tool(&env, &hub, "mlxk-push", &args).records();
    assert_eq!(records[0]["change_summary"]["added"], 1);
}

#[test]
fn a_wrong_call_ends_with_its_own_status() {
    let (env, hub) = (Env::new(), Hub::start());
    env.model("mine").write_workspace();
    for args in [
        &["--private", "mine", "name"][..],
        &["--private", "mine", "org/name", "--branch", "a b"],
        &["--private", "mine", "org/name", "--commit", " "],
    ] {
        assert_eq!(tool(&env, &hub, "mlxk-push", args).end().status(), 2, "{args:?}");
    }
    let args = ["--private", "mine", "name"];
    let envelope = tool(&env, &hub, "mlxk-push", &args).envelope(2);
    assert_eq!(envelope["error"]["type"], "validation_error");
    assert_eq!(hub.requests().len(), 0);
}
