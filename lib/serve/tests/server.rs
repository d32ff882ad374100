//! The server on a socket: clients that go away, many at once, and how it stops.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mlxk_serve::{App, Engine, Socket, run};
use mlxk_testengine::{Script, settings, text};
use serde_json::json;

struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Server {
    fn start(script: &Script, grace: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let app = App::new(script.clone(), settings());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let sockets = vec![Socket::Tcp(listener)];
            run(&app, sockets, grace, &|| stopped.load(Ordering::Relaxed)).unwrap();
        });
        Server { address, stop, thread }
    }

    fn ask(&self, model: &str, stream: bool) -> TcpStream {
        let body = json!({
            "model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}],
        });
        let body = body.to_string();
        let mut client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        client.write_all((head + &body).as_bytes()).unwrap();
        client
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

fn all(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < late, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn long() -> Script {
    let pieces = (0..10_000).map(|_| text("a "));
    Script::new().with("long", pieces).pace(Duration::from_millis(5))
}

#[test]
fn clients_that_vanish_leave_no_work_behind() {
    let script = long();
    let server = Server::start(&script, Duration::ZERO);
    let clients: Vec<_> = (0..40).map(|number| server.ask("long", number % 2 == 0)).collect();
    until("all begin", || script.figures().running == 40);
    drop(clients);
    until("none goes on", || script.figures().running == 0);
    server.stop();
}

#[test]
fn many_are_answered_at_once() {
    let script = Script::new();
    let server = Server::start(&script, Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let answer = all(server.ask("words", true));
                    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("[DONE]"));
                }
            });
        }
    });
    server.stop();
}

#[test]
fn a_server_that_stops_lets_answers_end_within_their_time() {
    let pieces = (0..40).map(|_| text("a "));
    let script = Script::new().with("short", pieces).pace(Duration::from_millis(5));
    let server = Server::start(&script, Duration::from_secs(20));
    let client = server.ask("short", true);
    until("it begins", || script.figures().running == 1);
    server.stop();
    assert!(all(client).contains("[DONE]"));

    let script = long();
    let server = Server::start(&script, Duration::from_millis(50));
    let client = server.ask("long", true);
    until("it begins", || script.figures().running == 1);
    server.stop();
    assert!(!all(client).contains("[DONE]"));
    until("it is given up", || script.figures().running == 0);
}

#[test]
fn what_is_no_http_disturbs_nobody() {
    let server = Server::start(&Script::new(), Duration::ZERO);
    let mut noise = TcpStream::connect(server.address).unwrap();
    noise.write_all(b"\x16\x03\x01 no http\r\n\r\n").unwrap();
    let mut endless = TcpStream::connect(server.address).unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // The server may close it midway.
    let _ = endless.write_all(&b"a: b\r\n".repeat(20_000));
    assert!(all(server.ask("words", false)).contains("One two three."));
    let mut answer = Vec::new();
    // It may have been reset.
    let _ = endless.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    server.stop();
}
