//! A server that lets another one answer requests for embeddings, and one that answers with one model.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use mlxk_serve::{App, EmbedBackend, EmbedOnly, Key, Settings};
use mlxk_testengine::{Answered, Script, Served, ask, get, post, settings};
use serde_json::{Value, json};

/// A server that forwards to `url`, with `key`.
fn forwarding(url: &str, key: Option<&str>) -> Arc<App> {
    let backend = EmbedBackend::new(url, key.map(str::to_owned)).unwrap();
    App::new(Script::new(), Settings { embed_backend: Some(backend), ..settings() })
}

/// Sends a request for embeddings with a key and an id.
async fn embed(app: &Arc<App>, body: &str) -> Answered {
    let request = Request::post("/v1/embeddings")
        .header("authorization", "Bearer secret-of-the-client")
        .header("content-type", "application/json; charset=utf-8")
        .header("x-request-id", "id-7")
        .body(Body::from(body.to_owned()));
    ask(app, request.unwrap()).await
}

/// A backend that answers one request with `answer`, and the request that it gets.
fn answering(answer: &str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = answer.to_owned();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut got, mut bytes) = (Vec::new(), [0; 4096]);
        while !got.ends_with(b"}") {
            let read = stream.read(&mut bytes).unwrap();
            got.extend_from_slice(&bytes[..read]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(got).unwrap()
    });
    (url, thread)
}

fn response(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
         set-cookie: a=b\r\nconnection: close\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_body_and_its_answer_pass_as_they_are() {
    let script = Script::new();
    let keys = vec![Key::new("secret-of-the-backend").unwrap()];
    let behind = Served::start(&script, Settings { keys, ..settings() }, Duration::ZERO);
    let url = format!("http://{}", behind.address);
    let body = json!({"model": "any", "input": ["ab", "c"], "dimensions": 2, "truncate": true});
    let app = forwarding(&format!("{url}/v1/"), Some("secret-of-the-backend"));
    let answered = embed(&app, &body.to_string()).await;
    assert_eq!(answered.json()["data"][0]["embedding"], json!([2.0, 2.0]));
    assert_eq!(answered.headers["x-mlxk-truncated"], "1");
    assert_eq!(answered.headers["x-request-id"], "id-7");
    assert_eq!(script.embedded().model, "any");
    // Its refusals pass too, and a key that it does not know is one.
    let refused = embed(&app, r#"{"model": "m"}"#).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["param"]),
        (400, &json!("input"))
    );
    assert_eq!(embed(&forwarding(&url, None), &body.to_string()).await.status, 401);
    behind.stop();
}

#[tokio::test]
async fn no_key_and_no_header_of_a_client_reaches_the_backend() {
    let (url, got) = answering(&response("200 OK", "application/json", "{\"a\": 1}"));
    let answered = embed(&forwarding(&url, Some("k")), r#"{"input":  "a"}"#).await;
    assert_eq!((answered.text.as_str(), answered.headers.get("set-cookie")), ("{\"a\": 1}", None));
    let got = got.join().unwrap();
    assert!(!got.contains("secret") && got.contains("authorization: Bearer k\r\n"), "{got}");
    for part in ["content-type: application/json; charset=utf-8", "x-request-id: id-7", "identity"]
    {
        assert!(got.contains(part), "{got}");
    }
    assert!(got.ends_with("\r\n\r\n{\"input\":  \"a\"}"), "{got}");
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_of_this_server() {
    let elsewhere = "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\n\
                     content-length: 0\r\nconnection: close\r\n\r\n";
    let html = |status| response(status, "text/html", "<h1>oops</h1>");
    let cut = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    for (answer, status, message) in [
        (elsewhere.to_owned(), 502, "answers 307 Temporary Redirect, not followed"),
        (html("200 OK"), 502, "answers 200 OK without JSON"),
        (html("503 Service Unavailable"), 503, "answers 503 Service Unavailable without JSON"),
        (cut.to_owned(), 502, "cannot be reached"),
        ("nonsense\r\n\r\n".to_owned(), 502, "cannot be reached"),
    ] {
        let (url, got) = answering(&answer);
        let answered = embed(&forwarding(&url, None), "{}").await;
        let said = answered.refused(status);
        assert!(said.contains(message) && !said.contains("127.0.0.1"), "{said}");
        assert_eq!(answered.json()["error"]["code"], "backend_error");
        got.join().unwrap();
    }
    let gone = embed(&forwarding("http://127.0.0.1:1", None), "{}").await;
    assert!(gone.refused(502).contains("cannot be reached"));
    let large = format!("{{\"input\": \"{}\"}}", "a".repeat(2 << 20));
    assert_eq!(embed(&forwarding("http://127.0.0.1:1", None), &large).await.status, 413);
}

#[tokio::test]
async fn servers_that_forward_to_each_other_are_seen() {
    let app = forwarding("http://127.0.0.1:1", None);
    let request = Request::post("/v1/embeddings").header("x-mlxk-forwarded", "1");
    let answered = ask(&app, request.body(Body::from("{}")).unwrap()).await;
    assert!(answered.refused(502).contains("in a circle"));
}

#[test]
fn only_the_address_of_a_server_is_one() {
    for (url, message) in [
        ("localhost:8002", "not an http or https URL"),
        ("ftp://host", "not an http or https URL"),
        ("http://", "not a URL"),
        ("http://user:secret@host", "a URL with a name or password, which logs would show"),
        ("http://host/?a=b", "a URL with a query or a fragment"),
        ("http://host/#a", "a URL with a query or a fragment"),
    ] {
        let refused = EmbedBackend::new(url, None).unwrap_err();
        assert_eq!(refused.message, message, "{url}");
    }
    let backend = EmbedBackend::new("https://host:8002/", Some("secret".to_owned())).unwrap();
    assert_eq!(format!("{backend:?}"), r#"EmbedBackend("https://host:8002/v1/embeddings")"#);
}

#[tokio::test]
async fn one_model_answers_for_all_names() {
    let only = EmbedOnly {
        model: "bert".to_owned(),
        identity: "org/bert".to_owned(),
        fingerprint: "0123abcd.cpu".to_owned(),
    };
    let script = Script::new();
    let app = App::new(script.clone(), Settings { embed_only: Some(only), ..settings() });
    let health = json!({"status": "ok", "model": "org/bert", "system_fingerprint": "0123abcd.cpu"});
    assert_eq!(get(&app, "/health").await.json(), health);
    let answered = post(&app, "/v1/embeddings", json!({"model": "x", "input": "a"})).await.json();
    assert_eq!(script.embedded().model, "bert");
    assert_eq!(
        (&answered["model"], &answered["system_fingerprint"]),
        (&health["model"], &health["system_fingerprint"])
    );
    assert_eq!(answered["data"][0]["embedding"], "AACAPwAAgD8AAIA/");
    let float = json!({"model": "x", "input": "a", "encoding_format": "float"});
    let answered = post(&app, "/v1/embeddings", float).await.json();
    assert_eq!(answered["data"][0]["embedding"], json!([1.0, 1.0, 1.0]));
    let missing: Value = post(&app, "/v1/embeddings", json!({"input": "a"})).await.json();
    assert_eq!(missing["error"]["param"], "model");
}
