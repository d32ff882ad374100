//! mlxk: the dispatcher, and the ways of the program it replaces.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::env::{Env, program_path};

#[test]
fn a_command_is_the_program_of_that_name() {
    let env = Env::with_three();
    assert_eq!(env.run("mlxk").args(["ls", "--all"]).ok(), env.run("mlxk-ls").args(["--all"]).ok());
    let version = concat!("mlxk-ls ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(env.run("mlxk").args(["ls", "--version"]).ok(), version);
    assert_eq!(env.run("mlxk").args(["health", "Broken"]).end().status(), 1);
}

#[test]
fn scripts_of_old_run_unchanged() {
    let env = Env::with_three();
    let mlxk = |args: &[&str]| env.run("mlxk").args(args).end().stdout();
    let human =
        |program: &str, args: &[&str]| env.run(program).args(["--human"]).args(args).end().stdout();
    assert_eq!(mlxk(&["list", "--all", "--health"]), human("mlxk-ls", &["--all", "--health"]));
    assert_eq!(mlxk(&["show", "Good"]), human("mlxk-show", &["Good"]));
    assert_eq!(mlxk(&["health"]), human("mlxk-health", &[]));
    for args in [["list", "--all", "--json"], ["--json", "list", "--all"]] {
        assert_eq!(mlxk(&args), env.run("mlxk-ls").args(["--json"]).ok());
    }
    assert!(mlxk(&["rm", "Good", "-f"]).starts_with("rm: mlx-community/Good-4bit — deleted"));
}

#[test]
fn what_a_script_reads_is_left_to_it() {
    let env = Env::with_three();
    let health = |args: &[&str]| env.run("mlxk").args(args).stdin("Good\n").end().stdout();
    assert!(health(&["health"]).starts_with("Summary: total 3"));
    assert_eq!(health(&["health", "-"]), "healthy   mlx-community/Good-4bit — Model is healthy\n");
}

#[test]
fn its_other_names_are_the_same_program() {
    let env = Env::with_three();
    for name in ["mlxk2", "mlxk-json"] {
        symlink(program_path("mlxk"), env.home().join(name)).unwrap();
        let run = |args: &[&str]| {
            let mut command = Command::new(env.home().join(name));
            command.args(args).env("HF_HOME", env.home().join("hf")).stdin(Stdio::null());
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        assert!(run(&["--version"]).starts_with(&format!("{name} 2.")), "scripts want 2 or newer");
        assert!(run(&["list"]).contains("Good-4bit"), "finds mlxk-ls beside the real program");
    }
}

#[test]
fn the_envelope_has_the_errors_and_data_that_scripts_know() {
    let env = Env::with_three();
    env.model("mine").write_workspace();
    let path = env.workspaces().join("mine");
    let (mine, target) = (path.to_str().unwrap(), env.home().join("t"));
    let target = target.to_str().unwrap();
    for (args, status, kind, data) in [
        (vec!["list", "--nonsense"], 2, "CommandError", Value::Null),
        (vec!["convert", mine, target], 2, "InvalidArgumentError", json!({"source": mine})),
        (
            vec!["convert", mine, mine, "--repair-index"],
            1,
            "ValueError",
            json!({"target": mine, "mode": "repair-index"}),
        ),
        (vec!["health", "org"], 1, "ambiguous_match", json!({"summary": {"total": 0}})),
        (vec!["pull", "a@"], 1, "ValidationError", json!({"download_status": "failed"})),
        (
            vec!["push", "--private", "nothing", "org/m"],
            1,
            "workspace_not_found",
            json!({"repo_id": "org/m", "branch": "main"}),
        ),
        (vec!["rm", mine], 1, "workspace_model", json!({"model": mine})),
    ] {
        let envelope = env.run("mlxk").args(&args).envelope(status);
        assert_eq!(envelope["error"]["type"], kind, "{args:?}");
        let has = |part: &Value, whole: &Value| match part {
            Value::Object(fields) => fields.iter().all(|(key, value)| match value {
                Value::Object(inner) => inner.iter().all(|(k, v)| whole[key][k] == *v),
                value => whole[key] == *value,
            }),
            part => part == whole,
        };
        assert!(has(&data, &envelope["data"]), "{args:?}: {}", envelope["data"]);
    }
    let own = env.run("mlxk-ls").args(["--nonsense"]).envelope(2);
    assert_eq!(own["error"]["type"], "command_error", "under its own name");
    let config = env.run("mlxk").args(["show", "Good", "--config"]).envelope(0);
    assert_eq!(config["data"]["model_config"]["model_type"], "llama");
}

#[test]
fn mlx_run_is_run() {
    let env = Env::new();
    let name = env.home().join("mlx-run");
    symlink(program_path("mlxk"), &name).unwrap();
    let said = |command: &mut Command| {
        let output = command.arg("--help").output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let short = said(&mut Command::new(&name));
    assert!(short.contains("mlxk-run"), "{short}");
    assert_eq!(short, said(env.command("mlxk").arg("run")));
}

#[test]
fn an_unknown_command_gets_the_nearest_or_all() {
    let env = Env::new();
    let ended = env.run("mlxk").args(["healht"]).end();
    ended.refused(2, "mlxk: healht: no such command");
    assert_eq!(ended.stderr().lines().last(), Some("hint: did you mean `mlxk health`?"));
    let ended = env.run("mlxk").args(["xyzzy"]).end();
    assert!(ended.stderr().contains("hint: the commands are ls, show, health, rm"));
    let error = &env.run("mlxk").args(["xyzzy"]).envelope(2)["error"];
    assert_eq!(error["type"], "CommandError");
}

#[test]
fn alone_it_lists_its_commands() {
    let env = Env::new();
    let ended = env.run("mlxk").end();
    assert_eq!(ended.status(), 2);
    assert!(ended.stdout().contains("\nCommands:\n  ls        List the models on disk\n"));
}

#[test]
fn version_can_be_asked_for_in_json() {
    let env = Env::new();
    let data = &env.run("mlxk").args(["--version"]).envelope(0)["data"];
    assert_eq!(data["cli_version"], "2.0.8");
    assert_eq!(data["json_api_spec_version"], "0.2.4");
}
