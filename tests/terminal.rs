//! The bar on a terminal: it is drawn while bytes move, and gone at the end.

use std::fs;
use std::process::Command;

use mlxk_testhub::{Fault, Rule};
use rexpect::session::spawn_command;
use unicode_width::UnicodeWidthStr;

use crate::convert::gguf::Builder;
use crate::env::{Env, program_path};
use crate::pull::sides;

/// What a terminal may take, in milliseconds.
const PATIENCE: u64 = 30_000;

/// All that a program writes to a terminal, if it ends well.
fn on_a_terminal(env: &Env, endpoint: &str, program: &str, args: &[&str]) -> String {
    let mut command = env.at_home(Command::new(program_path(program)));
    command.env("TERM", "xterm").env("HF_ENDPOINT", endpoint).args(args);
    let mut session = spawn_command(command, Some(PATIENCE)).unwrap();
    let said = session.exp_eof().unwrap();
    let end = format!("{:?}", session.process().wait().unwrap());
    assert!(end.ends_with(", 0)"), "{program}: {end}: {said}");
    said
}

#[test]
fn a_bar_is_drawn_and_taken_away() {
    let (env, hub) = sides();
    fs::write(env.home().join("tiny.gguf"), Builder::llama().bytes()).unwrap();
    hub.fault(Rule::on("/objects/"), Fault::Slow { rate: 30_000_000 });
    for (program, args, last) in [
        ("mlxk-pull", &["org/M"][..], "fetched 5 files"),
        ("mlxk-clone", &["org/M", "./copy"], "healthy)\r\n"),
        ("mlxk-convert", &["tiny.gguf", "./tiny"], "(healthy, 11 tensors"),
        (
            "mlxk-convert",
            &["./tiny", "./small", "--quantize", "4", "--q-group-size", "32"],
            "(healthy",
        ),
        ("mlxk-convert", &["./copy", "./again", "--repair-index"], "needs no index"),
        ("mlxk-health", &["--verify", "org/M"], "healthy   org/M"),
        ("mlxk-health", &["--verify", "./copy"], "healthy   "),
    ] {
        let said = on_a_terminal(&env, hub.endpoint(), program, args);
        let drawn = said.rsplit_once("B/s, ");
        let (_, rest) = drawn.unwrap_or_else(|| panic!("{program} {args:?}: no bar: {said:?}"));
        let cleared = rest.contains("\x1b[2K");
        assert!(cleared && said.contains(last), "{program} {args:?}: {said:?}");
    }
}

#[test]
fn a_table_fits_the_terminal() {
    let env = Env::new();
    env.model("org/模型-👨‍👩‍👧-Instruct-2507-8bit-with-a-long-name-that-never-ends")
        .quantized()
        .write();
    env.model("org/short").quantized().write();
    for (columns, args) in
        [(80, "--all --health --verbose"), (80, "--all --origin"), (40, "--all --health"), (20, "")]
    {
        let mut command = env.at_home(Command::new("sh"));
        let program = program_path("mlxk-ls");
        let script = format!("stty cols {columns}; {} {args}", program.display());
        command.env("LC_ALL", "C.UTF-8").args(["-c", &script]);
        let said = spawn_command(command, Some(PATIENCE)).unwrap().exp_eof().unwrap();
        // Every byte came as a character.
        let said: Vec<u8> = said.chars().map(|byte| byte as u8).collect();
        let said = String::from_utf8(said).unwrap();
        let widths: Vec<usize> = said.lines().map(|line| line.trim_end().width()).collect();
        let widest = widths.iter().max().unwrap();
        assert!((columns - 6..=columns).contains(widest), "{columns}: {said}");
        assert!(said.contains("…"), "{said}");
    }
}
