//! mlxk: the dispatcher, and the ways of the program it replaces.

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

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
        assert_eq!(run(&["--version"]), format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
        assert!(run(&["list"]).contains("Good-4bit"), "finds mlxk-ls beside the real program");
    }
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
    assert_eq!(error["type"], "command_error");
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
    assert_eq!(data["cli_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(data["json_api_spec_version"], "0.2.4");
}
