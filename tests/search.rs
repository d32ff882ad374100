//! mlxk-serve with an embedding model and a reranker, beside a model that writes text.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use crate::env::Env;
use crate::serve::{Server, home};

/// A server of the models `bert`, `rank` and `tiny`, and what is expected of the first two.
struct Search {
    env: Env,
    server: Server,
    bert: Value,
    rank: Value,
}

impl Search {
    fn start() -> Search {
        let env = home();
        let [bert, rank] = [("bert", "bert-mean"), ("rank", "bert-rerank")].map(|(name, case)| {
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embed").join(case);
            copy(&data, &env.workspaces().join(name));
            serde_json::from_slice(&fs::read(data.join("expected.json")).unwrap()).unwrap()
        });
        let mut command = env.command("mlxk-serve");
        command.args(["--port", "0", "--model", "bert", "--model", "rank"]);
        Search { server: Server::begin(command), env, bert, rank }
    }

    /// Sends a body, or asks for the route without one.
    fn send(&self, path: &str, body: &Value) -> impl Read {
        let mut stream = self.server.tcp();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let method = if body.is_empty() { "GET" } else { "POST" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    }

    /// The status and the document of a response.
    fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut answer = String::new();
        self.send(path, body).read_to_string(&mut answer).unwrap();
        let (head, document) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(document).unwrap_or_else(|e| panic!("{e}: {answer}")))
    }

    fn told(&self, path: &str, body: &Value) -> Value {
        let (status, document) = self.ask(path, body);
        assert_eq!(status, 200, "{document}");
        document
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => fs::write(target, fs::read(&path).unwrap()).unwrap(),
        }
    }
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[track_caller]
fn near(got: &[f64], want: &[f64]) {
    let apart = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    assert!(got.len() == want.len() && apart.fold(0.0, f64::max) < 1e-5, "{got:?}, {want:?}");
}

#[test]
fn vectors_are_those_of_mlxk_embed_also_beside_a_stream() {
    let search = Search::start();
    // An empty text is refused, as in OpenAI's API.
    let texts: Vec<&Value> =
        search.bert["texts"].as_array().unwrap().iter().filter(|text| *text != "").collect();
    let lines: String = texts.iter().map(|text| format!("{}\n", json!({"text": text}))).collect();
    let records = search.env.run("mlxk-embed").args(["bert", "--truncate"]).stdin(lines).records();
    let chat = json!({"model": "tiny", "prompt": "w1 w2", "max_tokens": 100, "stream": true});
    let mut stream = BufReader::new(search.send("/v1/completions", &chat)).lines();
    let first = stream.by_ref().map(Result::unwrap).find(|line| line.starts_with("data: "));
    assert!(first.is_some());
    let float = json!({"model": "bert", "input": texts, "truncate": true});
    thread::scope(|scope| {
        let asked = [0, 1].map(|_| scope.spawn(|| search.told("/v1/embeddings", &float)));
        for told in asked.map(|asked| asked.join().unwrap()) {
            for (place, record) in records.iter().enumerate() {
                let vector = numbers(&told["data"][place]["embedding"]);
                near(&vector, &numbers(&record["embedding"]));
            }
            let tokens: u64 = records.iter().map(|record| record["tokens"].as_u64().unwrap()).sum();
            assert_eq!(told["usage"]["prompt_tokens"], tokens);
        }
    });
    assert!(stream.map(Result::unwrap).any(|line| line == "data: [DONE]"));
    let alone = json!({"model": "bert", "input": texts[0]});
    let float = search.told("/v1/embeddings", &alone);
    let coded = json!({"model": "bert", "input": texts[0], "encoding_format": "base64"});
    let coded = search.told("/v1/embeddings", &coded);
    let line = json!({"text": texts[0]}).to_string();
    let args = ["bert", "--encoding", "base64"];
    let record = search.env.run("mlxk-embed").args(args).stdin(line).records().remove(0);
    assert_eq!(coded["data"][0]["embedding"], record["embedding"]);
    assert_eq!(float["data"][0]["embedding"].as_array().unwrap().len(), 32);
}

#[test]
fn documents_are_ranked_by_their_scores() {
    let search = Search::start();
    let (queries, documents) = (&search.rank["queries"], &search.rank["documents"]);
    let body = json!({
        "model": "rank", "query": queries[0], "documents": documents, "truncate": true,
    });
    let told = search.told("/v1/rerank", &body);
    let mut want: Vec<(usize, f64)> = numbers(&search.rank["scores"])
        .into_iter()
        .take(documents.as_array().unwrap().len())
        .enumerate()
        .collect();
    want.sort_by(|a, b| b.1.total_cmp(&a.1));
    let results = told["results"].as_array().unwrap();
    let scores: Vec<f64> =
        results.iter().map(|result| result["relevance_score"].as_f64().unwrap()).collect();
    near(&scores, &want.iter().map(|(_, score)| *score).collect::<Vec<_>>());
    let order: Vec<usize> =
        results.iter().map(|result| result["index"].as_u64().unwrap() as usize).collect();
    assert_eq!(order, want.iter().map(|(index, _)| *index).collect::<Vec<_>>());
}

#[test]
fn a_model_for_something_else_is_refused_with_the_route_that_uses_it() {
    let search = Search::start();
    let messages = json!([{"role": "user", "content": "Hello"}]);
    for (path, body, part) in [
        ("/v1/embeddings", json!({"model": "tiny", "input": "a"}), "POST /v1/chat/completions"),
        ("/v1/embeddings", json!({"model": "rank", "input": "a"}), "POST /v1/rerank"),
        (
            "/v1/chat/completions",
            json!({"model": "bert", "messages": messages}),
            "POST /v1/embeddings",
        ),
        (
            "/v1/rerank",
            json!({"model": "bert", "query": "a", "documents": ["b"]}),
            "POST /v1/embeddings",
        ),
    ] {
        let (status, told) = search.ask(path, &body);
        let message = told["error"]["message"].as_str().unwrap();
        assert!(status == 422 && message.contains(part), "{told}");
    }
    let listed = search.told("/v1/models", &Value::Null);
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["bert", "rank", "tiny"]);
}

#[test]
fn a_server_lets_another_one_embed() {
    let behind = Search::start();
    let mut command = behind.env.command("mlxk-serve");
    command.args(["--port", "0", "--model", "tiny", "--embed-backend", behind.server.address()]);
    let front = Server::begin(command);
    assert_eq!(front.record["embed_backend"], behind.server.address());
    let body = json!({"model": "bert", "input": ["a", "the cat"]});
    let direct = behind.told("/v1/embeddings", &body);
    let front = Search { server: front, env: home(), bert: Value::Null, rank: Value::Null };
    assert_eq!(front.told("/v1/embeddings", &body), direct);
    let (status, refused) = front.ask("/v1/embeddings", &json!({"model": "tiny", "input": "a"}));
    assert!(status == 422 && refused["error"]["message"].is_string(), "{refused}");
    let chat = json!({"model": "tiny", "prompt": "w1", "max_tokens": 1});
    assert_eq!(front.ask("/v1/completions", &chat).0, 200);
    drop(behind);
    let (status, refused) = front.ask("/v1/embeddings", &body);
    assert_eq!((status, &refused["error"]["code"]), (502, &json!("backend_error")));
    let ended = front.env.run("mlxk-serve").args(["--embed-backend", "localhost:1"]).end();
    ended.refused(2, "mlxk-serve: --embed-backend: not an http or https URL");
}

#[test]
fn embed_serve_of_mlx_knife_answers_for_all_names() {
    let env = home();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embed/bert-mean");
    copy(&data, &env.workspaces().join("bert"));
    let mut command = env.command("mlxk");
    command.args(["embed-serve", "--port", "0", "bert", "--cpu"]);
    let search =
        Search { server: Server::begin(command), env, bert: Value::Null, rank: Value::Null };
    let record = &search.server.record;
    assert_eq!((&record["model"], &record["device"]), (&json!("bert"), &json!("cpu")));
    let health = search.told("/health", &Value::Null);
    let expected = json!({"status": "ok", "model": "bert", "system_fingerprint": "nohash.cpu"});
    assert_eq!(health, expected);
    let told = search.told("/v1/embeddings", &json!({"model": "any", "input": "a"}));
    assert_eq!(
        (&told["model"], &told["system_fingerprint"]),
        (&json!("bert"), &json!("nohash.cpu"))
    );
    assert!(told["data"][0]["embedding"].is_string());
    let (status, info) = search.ask("/info", &Value::Null);
    assert_eq!((status, &info["max_input_length"]), (200, &json!(48)));
    for (args, message) in [
        (&["embed-serve"][..], "--embed-only: it serves exactly one model"),
        (&["embed-serve", "tiny"], "not an embedding model"),
    ] {
        let ended = search.env.run("mlxk").args(args).end();
        assert!(ended.status() > 0 && ended.stderr().contains(message), "{ended:?}");
    }
}
