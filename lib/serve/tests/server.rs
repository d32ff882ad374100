//! The server on a socket: clients that go away, many at once, and how it stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use mlxk_processor::Engine;
use mlxk_serve::{Settings, Times};
use mlxk_testengine::{Script, Served, settings, text};
use serde_json::json;

fn start(script: &Script, grace: Duration) -> Served {
    Served::start(script, settings(), grace)
}

/// A server of which `hasten` sets a timeout to a tenth of a second.
fn hasty(script: &Script, hasten: impl Fn(&mut Times, Duration)) -> Served {
    let mut settings = settings();
    hasten(&mut settings.times, Duration::from_millis(100));
    Served::start(script, settings, Duration::ZERO)
}

fn connect(server: &Served, sent: &str) -> TcpStream {
    let mut client = TcpStream::connect(server.address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(sent.as_bytes()).unwrap();
    client
}

/// The head of a request whose body has `length` bytes.
fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n"
    )
}

fn ask(server: &Served, model: &str, stream: bool) -> TcpStream {
    let body = json!({
        "model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}],
    });
    let body = body.to_string();
    connect(server, &(head(body.len()) + &body))
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
    let server = start(&script, Duration::ZERO);
    let clients: Vec<_> = (0..40).map(|number| ask(&server, "long", number % 2 == 0)).collect();
    until("all begin", || script.figures().running == 40);
    drop(clients);
    until("none goes on", || script.figures().running == 0);
    server.stop();
}

#[test]
fn many_are_answered_at_once() {
    let script = Script::new();
    let server = start(&script, Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..312 {
                    let answer = all(ask(&server, "words", true));
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
    let server = start(&script, Duration::from_secs(20));
    let client = ask(&server, "short", true);
    until("it begins", || script.figures().running == 1);
    server.stop();
    assert!(all(client).contains("[DONE]"));

    let script = long();
    let server = start(&script, Duration::from_millis(50));
    let (streamed, whole) = (ask(&server, "long", true), ask(&server, "long", false));
    until("they begin", || script.figures().running == 2);
    server.stop();
    let told = all(streamed);
    assert!(told.contains("server_shutdown") && !told.contains("[DONE]"), "{told}");
    let told = all(whole);
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("server_shutdown"), "{told}");
    until("they are given up", || script.figures().running == 0);
}

#[test]
fn who_is_slow_is_not_waited_for() {
    let script = Script::new();
    let server = hasty(&script, |times, short| times.head = short);
    let slow = connect(&server, "GET / HTTP/1.1\r\n");
    assert_eq!(all(slow), "");
    let idle = connect(&server, "");
    assert_eq!(all(idle), "");
    server.stop();
    let server = hasty(&script, |times, short| times.body = short);
    let answer = all(connect(&server, &(head(100) + "{\"model\"")));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("no body within 0.1 seconds"), "{answer}");
    server.stop();
}

#[test]
fn who_is_silent_makes_room_for_who_speaks() {
    const ROOM: usize = 16;
    let script = long();
    let settings = Settings { max_connections: ROOM, ..settings() };
    let server = Served::start(&script, settings, Duration::ZERO);
    let mut stream = ask(&server, "long", true);
    until("it begins", || script.figures().running == 1);
    let half = head(100) + "{";
    let said = ["", "GET /health HTTP/1.1\r\n", &half];
    let silent: Vec<_> = (0..5 * ROOM).map(|number| connect(&server, said[number % 3])).collect();
    for _ in 0..2 * ROOM {
        let health = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let mut client = connect(&server, health);
        let mut answer = [0; 15];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }
    // The connection that was idle longest is closed, the active one is not.
    assert_eq!(all(silent.into_iter().next().unwrap()), "");
    assert_eq!(script.figures().running, 1);
    stream.read_exact(&mut [0; 1000]).unwrap();
    server.stop();
}

#[test]
fn bodies_that_stop_coming_make_room_for_others() {
    const SIZE: usize = 1 << 20;
    let script = long();
    let server = Served::start(&script, settings(), Duration::ZERO);
    let mut stream = ask(&server, "long", true);
    until("it begins", || script.figures().running == 1);
    let most = head(SIZE) + &" ".repeat(SIZE - 100);
    let mut stopped: Vec<_> = (0..20).map(|_| connect(&server, &most)).collect();
    // Until then they still come, like any other.
    thread::sleep(Duration::from_secs(3));
    let body = json!({"model": "words", "messages": [{"role": "user", "content": "a".repeat(SIZE - 200)}]});
    for _ in 0..3 {
        let whole = connect(&server, &(head(body.to_string().len()) + &body.to_string()));
        let answer = all(whole);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // Four bodies have room, so all but the last ones were given up.
    let given_up = all(stopped.remove(0));
    assert!(given_up.starts_with("HTTP/1.1 408 "), "{given_up}");
    assert!(given_up.contains("the body stopped coming"), "{given_up}");
    stream.read_exact(&mut [0; 1000]).unwrap();
    server.stop();
}

#[test]
fn copies_of_a_body_count_like_bodies() {
    let server = start(&Script::new(), Duration::ZERO);
    let content = "a".repeat(900_000);
    let body =
        json!({"model": "words", "n": 8, "messages": [{"role": "user", "content": content}]});
    let answer = all(connect(&server, &(head(body.to_string().len()) + &body.to_string())));
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    server.stop();
}

#[test]
fn who_takes_no_answer_leaves_no_work_behind() {
    // The text is larger than all buffers between the two, and takes longer than the test.
    let piece = "a ".repeat(500_000);
    let script = Script::new().with("long", (0..100).map(|_| text(&piece)));
    let script = script.pace(Duration::from_millis(250));
    let server = hasty(&script, |times, short| times.write = short);
    let client = ask(&server, "long", true);
    until("it begins", || script.figures().running == 1);
    until("it is given up", || script.figures().running == 0);
    drop(client);
    server.stop();
}

#[test]
fn a_body_that_says_it_is_too_large_is_refused_at_once() {
    let server = start(&Script::new(), Duration::ZERO);
    let answer = all(connect(&server, &head(100_000_000)));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    server.stop();
}

#[test]
fn a_body_that_breaks_off_is_none_that_is_too_large() {
    let server = start(&Script::new(), Duration::ZERO);
    let head = head(0).replace("content-length: 0", "transfer-encoding: chunked");
    let answer = all(connect(&server, &format!("{head}zz\r\n")));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    server.stop();
}

#[test]
fn what_is_no_http_disturbs_nobody() {
    let server = start(&Script::new(), Duration::ZERO);
    let mut noise = TcpStream::connect(server.address).unwrap();
    noise.write_all(b"\x16\x03\x01 no http\r\n\r\n").unwrap();
    let mut endless = TcpStream::connect(server.address).unwrap();
    endless.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // The server may close the connection midway.
    let _ = endless.write_all(&b"a: b\r\n".repeat(20_000));
    assert!(all(ask(&server, "words", false)).contains("One two three."));
    let mut answer = Vec::new();
    // The connection may have been reset.
    let _ = endless.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    server.stop();
}
