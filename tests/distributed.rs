//! mlxk-serve --distributed: one model on two processes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::env::Env;
use crate::serve::{ask, home, until};

/// A process that is killed at the end of a test.
struct Rank(Child);

impl Rank {
    /// What it writes when it is ready.
    fn record(&mut self) -> Value {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// How it ends, and what it said.
    fn end(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        until("the end of a rank", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        let mut said = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.unwrap(), said)
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file with two addresses that are free.
fn hosts(env: &Env) -> PathBuf {
    let free = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let hosts = free.map(|free| [free.local_addr().unwrap().to_string()]);
    let file = env.workspaces().join("hosts.json");
    fs::write(&file, json!(hosts).to_string()).unwrap();
    file
}

fn rank(env: &Env, rank: &str, more: &[&str]) -> Rank {
    let mut command = env.command("mlxk-serve");
    command.args(["--ndjson", "--port", "0", "--distributed", "--rank", rank]).args(more);
    command.arg("--hostfile").arg(env.workspaces().join("hosts.json"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Rank(command.spawn().unwrap())
}

/// Two ranks of the model `tiny` that are ready, and what clients connect to.
fn both(env: &Env, more: &[&str]) -> ([Rank; 2], String) {
    hosts(env);
    let more = [&["--model", "tiny"], more].concat();
    let mut ranks = ["1", "0"].map(|number| rank(env, number, &more));
    let [follows, leads] = ranks.each_mut().map(Rank::record);
    assert_eq!((&follows["rank"], &follows["addresses"]), (&json!(1), &json!([])));
    assert_eq!(leads["rank"], 0);
    let address = leads["addresses"][0].as_str().unwrap();
    (ranks, address.strip_prefix("http://").unwrap().to_owned())
}

fn text(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap()["choices"][0]["text"].take()
}

#[test]
fn two_processes_answer_as_one_does_and_end_with_the_first() {
    let env = home();
    let mut alone = env.command("mlxk-serve");
    alone.args(["--ndjson", "--port", "0", "--model", "tiny"]).stdout(Stdio::piped());
    let mut alone = Rank(alone.stderr(Stdio::piped()).spawn().unwrap());
    let address = alone.record()["addresses"][0].as_str().unwrap()[7..].to_owned();
    let expected = text(&ask(TcpStream::connect(address).unwrap()));
    for split in ["tensor", "pipeline"] {
        let ([mut follows, mut leads], address) = both(&env, &["--split", split]);
        assert_eq!(text(&ask(TcpStream::connect(&address).unwrap())), expected, "{split}");
        leads.signal("-TERM");
        leads.end();
        let (status, said) = follows.end();
        assert!(status.success(), "{said}");
    }
}

#[test]
fn a_rank_that_dies_ends_the_others_with_one_line() {
    let env = home();
    for (dies, split) in [(0, "tensor"), (1, "tensor"), (1, "pipeline")] {
        let (mut ranks, address) = both(&env, &["--split", split, "--grace", "0"]);
        // In the middle of an answer.
        let body = json!({"model": "tiny", "prompt": "w1 w2", "max_tokens": 4000, "stream": true});
        let body = body.to_string();
        let mut stream = TcpStream::connect(&address).unwrap();
        let length = body.len();
        write!(stream, "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n").unwrap();
        write!(stream, "content-length: {length}\r\n\r\n{body}").unwrap();
        let mut begun = [0; 600];
        stream.read_exact(&mut begun).unwrap();
        ranks[1 - dies].signal("-KILL");
        let (status, said) = ranks[dies].end();
        assert_eq!(status.code(), Some(1), "{said}");
        // MLX complains too, and may do so in the middle of the line.
        let told = format!("mlxk-serve: rank {dies} has gone\n");
        assert_eq!(said.matches(&told).count(), 1, "{said}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let env = home();
    let refused = |rank_number: &str, more: &[&str], why: &str| {
        let (status, said) = rank(&env, rank_number, more).end();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.lines().next().unwrap().contains(why), "{said}");
    };
    let hosts = hosts(&env);
    refused("2", &["--model", "tiny"], "there are 2 ranks, counted from 0, not 2");
    refused("0", &[], "several processes run exactly one model");
    for wrong in ["[]", "{}", "[[\"127.0.0.1:1\"]]", "[[\"first:1\"], [\"second:1\"]]", "x"] {
        fs::write(&hosts, wrong).unwrap();
        refused("1", &["--model", "tiny"], hosts.to_str().unwrap());
    }
}
