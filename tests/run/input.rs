//! What is asked: words, standard input, and when that is read.

use std::process::Stdio;

use super::tiny::Tiny;

#[test]
fn standard_input_is_read_for_a_dash_or_through_the_gate() {
    let tiny = Tiny::new();
    let (first, rest) = tiny.prompt.rsplit_once(' ').unwrap();
    let args = ["--max-tokens", "3"];
    let known = format!("{}\n", tiny.words(3));
    let piped = |more: &[&str]| tiny.run(&args).args(more).stdin(format!("{}\n", tiny.prompt));
    assert_eq!(piped(&["-"]).ok(), known);
    assert_eq!(piped(&[]).env("MLXK2_ENABLE_PIPES", "1").ok(), known);
    assert_eq!(tiny.run(&args).args(["-", "--prompt", rest]).stdin(first).ok(), known);
    let ignored = tiny.run(&args).args([&tiny.prompt]).stdin("w1 w2 w3");
    assert_eq!(ignored.ok(), known);
    let closed = piped(&["-"]).env("MLXK2_ENABLE_PIPES", "0").end();
    closed.refused(2, "mlxk-run: standard input is disabled by MLXK2_ENABLE_PIPES=0");
    piped(&[]).end().refused(2, "mlxk-run: no prompt");
}

#[test]
fn a_stdin_that_nobody_asked_for_is_not_waited_for() {
    let tiny = Tiny::new();
    let mut command = tiny.command(&["--max-tokens", "1", "w1"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let held_open = child.stdin.take();
    assert!(child.wait().unwrap().success());
    drop(held_open);
}

#[test]
fn wrong_use_is_told_before_anything_is_loaded() {
    let tiny = Tiny::new();
    let refused = |args: &[&str], message| tiny.run(args).end().refused(2, message);
    refused(&["w1", "--max-tokens", "0"], "mlxk-run: `max_tokens` is not a whole number from 1");
    refused(&["w1", "--top-p", "2"], "mlxk-run: `top_p` is not a number from 0 to 1");
    refused(
        &["--ndjson", "-", "w1"],
        "mlxk-run: requests on standard input and a prompt on the command line",
    );
    let empty = tiny.run(&["-"]).stdin("\n\n").end();
    empty.refused(1, "mlxk-run: standard input is empty, and there is no other prompt");
    let binary = tiny.run(&["-"]).stdin(b"\xff\xfe".to_vec()).end();
    binary.refused(1, "mlxk-run: standard input: not UTF-8 text");
}
