//! Ctrl-C, and readers that go away.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use serde_json::json;

use super::tiny::Tiny;
use crate::env::interrupted;

const SIGPIPE: i32 = 13;

/// Reads the first bytes that a program writes.
fn first_output(child: &mut Child) {
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn ctrl_c_ends_the_answer_and_the_program_dies_by_it() {
    let tiny = Tiny::new();
    tiny.config("max_position_embeddings", json!(100_000));
    let mut child = tiny.command(&["w1"]).stdin(Stdio::null()).spawn().unwrap();
    first_output(&mut child);
    let output = interrupted(child);
    assert!(output.stdout.ends_with(b"\n"), "{output:?}");
    assert_eq!(output.stderr, b"");
}

#[test]
fn ctrl_c_ends_the_reading_of_a_prompt_at_once() {
    let tiny = Tiny::new();
    tiny.config("max_position_embeddings", json!(100_000));
    let mut child = tiny.command(&["--verbose", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&b"w1 ".repeat(50_000)).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut String::new()).unwrap(); // what tells that the model is loaded
    assert_eq!(interrupted(child).stdout, b"", "the answer has not begun");
}

#[test]
fn ctrl_c_ends_the_wait_for_a_request_at_once() {
    let tiny = Tiny::new();
    let mut child = tiny.command(&["--ndjson", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"{\"prompt\":\"w1\",\"max_tokens\":1}\n").unwrap();
    let mut answer = [0];
    while answer != *b"\n" {
        child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    }
    interrupted(child);
    drop(stdin);
}

#[test]
fn a_reader_that_goes_away_ends_the_answer_silently() {
    let tiny = Tiny::new();
    let mut child = tiny.command(&["w1"]).stdin(Stdio::null()).spawn().unwrap();
    first_output(&mut child);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.signal(), output.stderr.as_slice()), (Some(SIGPIPE), &b""[..]));
}
