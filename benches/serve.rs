//! Measures the server: what it costs besides the models, and what many requests at once bring.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mlxk_processor::Engine;
use mlxk_testengine::{Script, Served, settings, text};
use serde_json::{Value, json};

use crate::env::Env;
use crate::{import, peers, report, widen};

/// Short requests to an engine that answers at once.
const REQUESTS: usize = 10_000;
const CLIENTS: usize = 32;
/// Clients that go away before their answer ends.
const VANISHING: usize = 1000;
/// Megabytes by which these may make the server grow, and the time that work may go on for nobody.
const MOST_GROWTH: f64 = 5.0;
const MOST_TIME: Duration = Duration::from_secs(30);
/// Tokens of each answer of a model.
const TOKENS: usize = 96;

/// Measures the server with an engine of its own, then with a model, and the servers of peers with
/// the same model as they take it: with 16-bit scales mlx-lm does not get to an answer on a CPU.
pub fn run(env: &Env) {
    let folder = tempfile::tempdir().unwrap();
    let [model, wide] = ["SmolLM2", "wide"].map(|name| folder.path().join(name));
    import(env, &model);
    widen(env, &model, &wide, &[]);
    short_requests();
    delay();
    let ours = Server::ours(folder.path());
    streams("mlxk-serve", &ours);
    health(&ours);
    drop(ours);
    for python in peers("python") {
        if let Some(server) = Server::peer(&python, &wide) {
            streams("mlx_lm.server", &server);
        }
    }
}

/// The server in this process, over a script.
fn scripted(script: &Script, work: impl FnOnce(SocketAddr)) {
    let server = Served::start(script, settings(), Duration::ZERO);
    work(server.address);
    server.stop();
}

fn short_requests() {
    let script = Script::new();
    scripted(&script, |address| {
        let round = |count: usize| {
            thread::scope(|scope| {
                for _ in 0..CLIENTS {
                    scope.spawn(move || {
                        let mut client = Client::new(address);
                        for number in 0..count / CLIENTS {
                            let body = client.ask(&chat("words", number % 2 == 0, 3));
                            assert!(body.contains("three."), "{body}");
                        }
                    });
                }
            });
        };
        // Memory that the first requests take is taken for good.
        round(REQUESTS);
        let (before, started) = (resident(), Instant::now());
        round(REQUESTS);
        let (seconds, after) = (started.elapsed().as_secs_f64(), resident());
        let what = format!("{REQUESTS} requests");
        let each = format!("mlxk-serve, {CLIENTS} at once");
        report(&what, &each, REQUESTS as f64 / seconds, "a second");
        let growth = (after as f64 - before as f64) / 1e6;
        report(&what, "mlxk-serve, growth of memory", growth, "MB");
        assert!(growth < MOST_GROWTH, "{growth} MB");
    });
    let endless = Script::new().with("endless", vec![text("a "); 100_000]);
    let endless = endless.pace(Duration::from_millis(10));
    scripted(&endless, |address| {
        for number in 0..VANISHING {
            let mut client = Client::new(address);
            client.send(&chat("endless", number % 2 == 0, 100_000));
        }
        let started = Instant::now();
        while endless.figures().running > 0 {
            assert!(started.elapsed() < MOST_TIME, "{} go on", endless.figures().running);
            thread::sleep(Duration::from_millis(1));
        }
        let what = format!("{VANISHING} clients vanish");
        report(&what, "mlxk-serve, no work left", started.elapsed().as_secs_f64() * 1e3, "ms");
    });
}

/// How long a token takes from the engine to a client: it is sent with the time, and read.
fn delay() {
    let script = Script::new().timed("times", 400).pace(Duration::from_millis(2));
    scripted(&script, |address| {
        let mut client = Client::new(address);
        client.send(&chat("times", true, 400));
        let mut delays = Vec::new();
        client.lines(|line, now| {
            if let Some(sent) = content(line).and_then(|text| text.parse::<u128>().ok()) {
                delays.push(now.saturating_sub(sent) as f64 / 1e3);
            }
        });
        delays.sort_by(f64::total_cmp);
        let at = |part: f64| delays[(part * (delays.len() - 1) as f64) as usize];
        report("a token to its client", "mlxk-serve, median", at(0.5), "µs");
        report("a token to its client", "mlxk-serve, 99 in 100", at(0.99), "µs");
    });
}

/// A server of its own process.
struct Server {
    child: Child,
    address: SocketAddr,
    model: String,
}

impl Server {
    fn ours(home: &Path) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlxk-serve"));
        command.args(["--port", "0", "--ndjson", "--model", "SmolLM2"]);
        command.env("HF_HOME", home).env("MLXK_WORKSPACE_HOME", home);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let record: Value = serde_json::from_str(&line).unwrap();
        let address = record["addresses"][0].as_str().unwrap().strip_prefix("http://").unwrap();
        Server { child, address: address.parse().unwrap(), model: "SmolLM2".to_owned() }
    }

    /// None if that Python has no such server.
    fn peer(python: &Path, model: &Path) -> Option<Server> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(python);
        command.args(["-m", "mlx_lm", "server", "--model"]).arg(model).arg("--port");
        command.arg(free.port().to_string()).env("HF_HUB_OFFLINE", "1");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let model = model.display().to_string();
        let mut server = Server { child, address: free, model };
        while TcpStream::connect(free).is_err() {
            if server.child.try_wait().unwrap().is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(100));
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tokens a second of one stream, and of eight together.
fn streams(name: &str, server: &Server) {
    let rate = |count: usize| {
        let started = Instant::now();
        thread::scope(|scope| {
            for number in 0..count {
                let mut request = chat(&server.model, true, TOKENS);
                request["messages"][0]["content"] = format!("Tell me story {number}.").into();
                request["temperature"] = 0.into();
                scope.spawn(move || Client::new(server.address).ask(&request));
            }
        });
        (count * TOKENS) as f64 / started.elapsed().as_secs_f64()
    };
    rate(1);
    let (one, eight) = (rate(1), rate(8));
    report("one stream", name, one, "tok/s");
    report("eight streams", &format!("{name}, {:.2} times", eight / one), eight, "tok/s");
}

/// How long /health takes while a long prompt is looked at.
fn health(server: &Server) {
    let long = "word ".repeat(4000);
    let mut request = chat(&server.model, true, 1);
    request["messages"][0]["content"] = long.into();
    let mut prompt = Client::new(server.address);
    prompt.send(&request);
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let started = Instant::now();
        Client::new(server.address).get("/health");
        slowest = slowest.max(started.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    let slowest = slowest.as_secs_f64() * 1e3;
    report("/health", "mlxk-serve, slowest in a long prompt", slowest, "ms");
}

fn chat(model: &str, stream: bool, tokens: usize) -> Value {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": model, "messages": messages, "stream": stream, "max_tokens": tokens})
}

/// The text of a piece.
fn content(line: &str) -> Option<String> {
    let event: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
    Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned())
}

/// A connection that is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    fn send(&mut self, body: &Value) {
        let body = body.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all((head + &body).as_bytes()).unwrap();
    }

    fn ask(&mut self, body: &Value) -> String {
        self.send(body);
        self.read()
    }

    fn get(&mut self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
        self.read()
    }

    /// A body: of known length, in chunks, or until the connection ends.
    fn read(&mut self) -> String {
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", given)) => length = Some(given.parse::<usize>().unwrap()),
                Some(("transfer-encoding", "chunked")) => chunked = true,
                None if line.is_empty() => break,
                _ => {}
            }
        }
        let mut body = Vec::new();
        if let Some(length) = length {
            body.resize(length, 0);
            self.0.read_exact(&mut body).unwrap();
        } else if chunked {
            while self.chunk(&mut body) {}
        } else {
            self.0.read_to_end(&mut body).unwrap();
        }
        String::from_utf8(body).unwrap()
    }

    /// Adds a chunk. False if it was the last.
    fn chunk(&mut self, body: &mut Vec<u8>) -> bool {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let start = body.len();
        body.resize(start + size, 0);
        self.0.read_exact(&mut body[start..]).unwrap();
        self.line();
        size > 0
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Calls `hear` with each line up to the last, and the time in nanoseconds.
    fn lines(&mut self, mut hear: impl FnMut(&str, u128)) {
        loop {
            let line = self.line();
            hear(&line, mlxk_testengine::now());
            if line == "data: [DONE]" {
                return;
            }
        }
    }
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
