//! mlxk-serve as a process: where it listens, and what it leaves behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::env::{Env, program_path};
use crate::offline::can_unshare;

/// A home with a model of four layers, the workspace `tiny`.
pub fn home() -> Env {
    let env = Env::new();
    let tiny = env.workspaces().join("tiny");
    fs::create_dir_all(&tiny).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/llama");
        fs::copy(data.join(file), tiny.join(file)).unwrap();
    }
    env
}

/// A server that is killed at the end of a test.
pub struct Server {
    child: Child,
    /// What it says when it is ready.
    pub record: Value,
}

impl Server {
    fn start(mut command: Command) -> Server {
        command.args(["--model", "tiny"]);
        Server::begin(command)
    }

    /// Starts a server with the models of `command`, and waits until it answers.
    pub fn begin(mut command: Command) -> Server {
        command.arg("--ndjson");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let record = serde_json::from_str(&line).unwrap_or_else(|e| {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{e}: {said}")
        });
        Server { child, record }
    }

    pub fn address(&self) -> &str {
        self.record["addresses"][0].as_str().unwrap()
    }

    pub fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address().strip_prefix("http://").unwrap()).unwrap()
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// The signal by which it ends, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let late = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() && Instant::now() < late {
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.child.try_wait().unwrap();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take().filter(|_| status.is_some()) {
            stderr.read_to_string(&mut said).unwrap();
        }
        (status.and_then(|status| status.signal()), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn ask(mut stream: impl Read + Write) -> String {
    let body = json!({"model": "tiny", "prompt": "w1 w2", "temperature": 0, "max_tokens": 4});
    let body = body.to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < late, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_answers_until_a_signal_ends_it() {
    let env = home();
    for (name, signal) in [("-TERM", libc::SIGTERM), ("-INT", libc::SIGINT), ("-HUP", libc::SIGHUP)]
    {
        let mut command = env.command("mlxk-serve");
        command.args(["--port", "0", "--log-json", "--verbose"]);
        let server = Server::start(command);
        let answer = ask(server.tcp());
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("\"finish_reason\":\"length\""), "{answer}");
        server.signal(name);
        let (ended, said) = server.end();
        assert_eq!(ended, Some(signal), "{said}");
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let finished =
            lines.iter().find(|line| line["msg"] == "Generation finished: length").unwrap();
        assert_eq!(
            (&finished["model"], &finished["completion_tokens"]),
            (&json!("tiny"), &json!(4))
        );
    }
}

/// The processes of which this is a field of `ps`, those that have ended left out.
fn alive(field: usize, id: u32) -> Vec<u32> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let rows = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let rows = rows.filter(|row| row[field] == id.to_string() && !row[2].starts_with('Z'));
    rows.map(|row| row[0].parse().unwrap()).collect()
}

impl Server {
    fn on_socket(env: &Env, path: &Path) -> Server {
        let mut command = env.command("mlxk-serve");
        command.arg("--socket").arg(path);
        let server = Server::start(command);
        assert!(ask(UnixStream::connect(path).unwrap()).starts_with("HTTP/1.1 200 OK"));
        server
    }

    /// The process that sweeps up after it.
    fn sweeper(&self) -> u32 {
        let children = alive(1, self.child.id());
        assert_eq!(children.len(), 1, "{children:?}");
        children[0]
    }
}

#[test]
fn the_file_of_a_socket_goes_away_with_its_server() {
    let env = home();
    let path = env.home().join("mlxk.sock");
    for signal in ["-TERM", "-KILL"] {
        let server = Server::on_socket(&env, &path);
        let sweeper = server.sweeper();
        server.signal(signal);
        server.end();
        until("the file is gone", || !path.exists());
        until("nobody is left", || alive(0, sweeper).is_empty());
    }
    let server = Server::on_socket(&env, &path);
    let sweeper = server.sweeper().to_string();
    assert!(Command::new("kill").args(["-KILL", &sweeper]).status().unwrap().success());
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(libc::SIGTERM));
    assert!(!path.exists());
}

#[test]
fn a_socket_that_is_taken_is_left_alone() {
    let env = home();
    let path = env.home().join("mlxk.sock");
    let refused = || {
        let run = env.run("mlxk-serve").args(["--socket"]).args([&path]).end();
        assert_eq!(run.status(), 2, "{}", run.stderr());
    };
    fs::write(&path, "mine").unwrap();
    refused();
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::remove_file(&path).unwrap();
    let server = Server::on_socket(&env, &path);
    refused();
    assert!(ask(UnixStream::connect(&path).unwrap()).starts_with("HTTP/1.1 200 OK"));
    // What has come in its place belongs to another one.
    fs::remove_file(&path).unwrap();
    let other = Server::on_socket(&env, &path);
    let sweeper = server.sweeper();
    server.signal("-KILL");
    server.end();
    until("the sweeper has ended", || alive(0, sweeper).is_empty());
    assert!(ask(UnixStream::connect(&path).unwrap()).starts_with("HTTP/1.1 200 OK"));
    drop(other);
}

#[test]
fn without_a_network_it_serves_this_machine() {
    if !can_unshare() {
        return;
    }
    let env = home();
    let path = env.home().join("mlxk.sock");
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--"]).arg(program_path("mlxk-serve"));
    command.arg("--socket").arg(&path);
    let server = Server::start(env.at_home(command));
    assert!(ask(UnixStream::connect(&path).unwrap()).starts_with("HTTP/1.1 200 OK"));
    drop(server);
}

#[test]
fn a_socket_that_is_handed_over_is_used() {
    let env = home();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, socket) = (listener.local_addr().unwrap(), listener.as_raw_fd());
    let mut command = env.command("mlxk-serve");
    command.env("LISTEN_FDS", "1");
    // SAFETY: between fork and exec nothing is called but a system call.
    unsafe {
        command.pre_exec(move || {
            let there = match socket {
                3 => libc::fcntl(3, libc::F_SETFD, 0),
                _ => libc::dup2(socket, 3),
            };
            if there == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        })
    };
    let server = Server::start(command);
    assert_eq!(server.address(), format!("http://{address}"));
    assert!(ask(server.tcp()).starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn others_may_connect_only_with_a_key() {
    let env = home();
    let refused = env.run("mlxk-serve").args(["--host", "0.0.0.0", "--port", "0"]).end();
    refused.refused(2, "mlxk-serve: other machines can connect, and there is no key");
    let file = env.home().join("keys");
    fs::write(&file, "secret\n").unwrap();
    let mut command = env.command("mlxk-serve");
    command.args(["--host", "0.0.0.0", "--port", "0", "--api-key-file"]).arg(&file);
    let server = Server::start(command);
    assert!(ask(server.tcp()).starts_with("HTTP/1.1 401"));
    fs::write(&file, "two words\n").unwrap();
    let refused = env.run("mlxk-serve").args(["--api-key-file"]).args([&file]).end();
    assert_eq!(refused.status(), 2);
}

#[test]
fn what_cannot_be_loaded_is_told_before_it_serves() {
    let env = home();
    let refused = env.run("mlxk-serve").args(["--port", "0", "--model", "none"]).end();
    refused.refused(1, "mlxk-serve: none: no such model");
    let wrong = env.run("mlxk-serve").args(["--port", "0", "--allow-origin", "*"]).end();
    wrong.refused(2, "mlxk-serve: --allow-origin: not an origin: *");
}
