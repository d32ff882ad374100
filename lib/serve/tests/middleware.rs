//! Access control, request ids, malformed requests, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use mlxk_serve::{App, Key, Settings};
use mlxk_testengine::{Answered, Script, ask, get, post, settings, text};
use serde_json::json;

fn app(settings: Settings) -> Arc<App> {
    App::new(Script::new(), settings)
}

async fn with(app: &Arc<App>, path: &str, headers: &[(&str, &str)]) -> Answered {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(app, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_server_tells_that_it_is_there_and_what_it_has() {
    let app = app(settings());
    assert_eq!(get(&app, "/health").await.json()["status"], "ok");
    let models = get(&app, "/v1/models").await.json();
    assert_eq!(models["object"], "list");
    let first = json!({
        "id": "calls", "object": "model", "created": 0, "owned_by": "workspace",
        "permission": [], "context_length": 2048, "loaded": true, "task": "text",
    });
    assert_eq!(models["data"][0], first);
    assert_eq!(get(&app, "/v1/models/calls").await.json(), first);
    assert_eq!(
        get(&app, "/v1/models/org/none").await.refused(404),
        "org/none: no such model (GET /v1/models lists them)"
    );
    assert_eq!(get(&app, "/v1/models/%ff").await.refused(400), "the path is not UTF-8");
}

#[tokio::test]
async fn a_server_on_loopback_is_called_by_its_own_names_only() {
    let app = app(settings());
    for (host, status) in [
        ("localhost:8000", 200),
        ("127.0.0.1:8000", 200),
        ("127.9.9.9", 200),
        ("[::1]:8000", 200),
        ("models.localhost", 200),
        ("Host.docker.internal:8000", 200),
        ("docker.internal", 403),
        ("example.org", 403),
        ("localhost.example.org:8000", 403),
        ("127.0.0.1.example.org", 403),
    ] {
        assert_eq!(with(&app, "/health", &[("host", host)]).await.status, status, "{host}");
    }
    let named =
        App::new(Script::new(), Settings { hosts: vec!["Box.lan".to_owned()], ..settings() });
    for (host, status) in [("box.lan.:8000", 200), ("a.box.lan", 403)] {
        assert_eq!(with(&named, "/health", &[("host", host)]).await.status, status, "{host}");
    }
    let elsewhere = App::new(Script::new(), Settings { loopback: false, ..settings() });
    assert_eq!(with(&elsewhere, "/health", &[("host", "example.org")]).await.status, 200);
}

#[tokio::test]
async fn pages_from_elsewhere_may_ask_only_if_they_are_named() {
    let allowed = "https://chat.example";
    let open = app(Settings { origins: vec![allowed.parse().unwrap()], ..settings() });
    let closed = app(settings());
    let answer = with(&open, "/v1/models", &[("origin", allowed)]).await;
    assert_eq!(answer.headers["access-control-allow-origin"], allowed);
    let answer = with(&closed, "/v1/models", &[("origin", allowed)]).await;
    answer.refused(403);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    with(&closed, "/v1/models", &[("origin", "null")]).await.refused(403);
    let own = [("host", "localhost:8000"), ("origin", "http://localhost:8000")];
    assert_eq!(with(&closed, "/v1/models", &own).await.status, 200);
}

#[tokio::test]
async fn pages_that_may_ask_may_send_what_official_clients_send() {
    let allowed = "https://chat.example";
    let app = app(Settings { origins: vec![allowed.parse().unwrap()], ..settings() });
    let wanted = "authorization,x-api-key,anthropic-version,x-stainless-os";
    let request = Request::builder().method(Method::OPTIONS).uri("/v1/messages");
    let request = request.header("origin", allowed).header("access-control-request-method", "POST");
    let request = request.header("access-control-request-headers", wanted);
    let answer = ask(&app, request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["access-control-allow-headers"], wanted);
    assert!(answer.headers.contains_key("x-request-id"));
    let told = get(&app, "/metrics").await.text;
    assert!(
        told.contains("{method=\"OPTIONS\",route=\"/v1/messages\",status=\"200\"} 1"),
        "{told}"
    );
}

#[tokio::test]
async fn a_request_that_is_not_what_it_says_is_refused() {
    let app = app(settings());
    with(&app, "/health", &[("host", "localhost"), ("host", "evil.example")]).await.refused(400);
    with(&app, "/health", &[("content-encoding", "gzip")]).await.refused(415);
    assert_eq!(with(&app, "/health", &[("content-encoding", "identity")]).await.status, 200);
}

#[tokio::test]
async fn who_has_no_key_learns_only_that_the_server_is_there() {
    let app =
        app(Settings { keys: ["one", "two"].map(|k| Key::new(k).unwrap()).into(), ..settings() });
    assert_eq!(get(&app, "/health").await.status, 200);
    let answer = get(&app, "/v1/models").await;
    answer.refused(401);
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    for (headers, status) in [
        ([("authorization", "Bearer two")], 200),
        ([("authorization", "bearer one")], 200),
        ([("x-api-key", "one")], 200),
        ([("authorization", "Bearer three")], 401),
        ([("authorization", "one")], 401),
        ([("x-api-key", "")], 401),
    ] {
        assert_eq!(with(&app, "/v1/models", &headers).await.status, status, "{headers:?}");
    }
    assert!(Key::new("").is_none() && Key::new("a b").is_none());
}

#[tokio::test]
async fn every_answer_carries_the_id_of_its_request() {
    let app = app(settings());
    let id = |answer: &Answered| answer.headers["x-request-id"].to_str().unwrap().to_owned();
    let given = with(&app, "/nothing", &[("x-request-id", "abc-1")]).await;
    assert_eq!(
        (id(&given).as_str(), given.json()["request_id"].as_str()),
        ("abc-1", Some("abc-1"))
    );
    let long = "a".repeat(129);
    for bad in ["", "a b", &long] {
        let fresh = with(&app, "/health", &[("x-request-id", bad)]).await;
        assert_eq!(id(&fresh).len(), 36, "{bad}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_told_in_the_same_form() {
    let app = app(settings());
    assert_eq!(get(&app, "/v1/nothing").await.refused(404), "no such path");
    let answer = get(&app, "/v1/chat/completions").await;
    assert_eq!(answer.refused(405), "GET is not for this path");
    assert_eq!(answer.headers["allow"], "POST");
    let delete = Request::builder().method(Method::DELETE).uri("/v1/models");
    ask(&app, delete.body(Body::empty()).unwrap()).await.refused(405);
}

#[tokio::test]
async fn bodies_that_are_no_request_are_refused() {
    let app = app(settings());
    let path = "/v1/chat/completions";
    for (body, message) in [
        ("".to_owned(), "the body is not JSON: EOF"),
        ("{\"model\": ".to_owned(), "the body is not JSON: EOF"),
        ("[1]".to_owned(), "the body is not a JSON object"),
        (
            format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
            "the body is not JSON: recursion",
        ),
        (format!("{{\"a\": [0{}]}}", ",0".repeat(300_000)), "the body has more than 300000 values"),
        (format!("{{\"a\": \"\\\"{}", ",".repeat(300_000)), "the body is not JSON: EOF"),
    ] {
        let refused = post(&app, path, body).await.refused(400);
        assert!(refused.starts_with(message), "{refused}");
    }
    let invalid = Request::post(path).body(Body::from(&b"{\"model\": \"\xff\"}"[..])).unwrap();
    assert!(ask(&app, invalid).await.refused(400).contains("unicode"));
    let large = "x".repeat((1 << 20) + 1);
    let answer = post(&app, path, large).await;
    answer.refused(413);
    assert_eq!(answer.json()["error"]["code"], "payload_too_large");
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let app = app(settings());
    app.close();
    let answer = get(&app, "/v1/models").await;
    answer.refused(503);
    assert_eq!(answer.json()["error"]["code"], "server_shutdown");
}

#[tokio::test]
async fn the_description_tells_of_every_route_and_of_no_other() {
    let app = app(settings());
    let description = get(&app, "/openapi.json").await.json();
    let mut routes = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let request = Request::builder().method(method.to_uppercase().as_str());
            let request = request.uri(path.replace("{id}", "words")).body(Body::empty()).unwrap();
            let status = ask(&app, request).await.status.as_u16();
            assert!(![404, 405].contains(&status), "{method} {path}");
            routes.push(path.as_str());
        }
    }
    let source = include_str!("../src/routes.rs");
    assert_eq!(source.matches(".route(").count(), routes.len());
}

#[tokio::test]
async fn the_page_needs_nothing_from_outside() {
    let answer = get(&app(settings()), "/").await;
    assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"));
    assert!(!answer.text.contains("http://") && !answer.text.contains("https://"));
}

#[tokio::test]
async fn what_is_counted_is_told_to_prometheus() {
    let app = app(settings());
    let body = json!({
        "model": "words", "messages": [{"role": "user", "content": "Hi"}], "logprobs": true,
    });
    post(&app, "/v1/chat/completions", body).await.json();
    get(&app, "/v1/nothing").await;
    for method in ["BREW", "PROPFIND", "WHEN"] {
        let request = Request::builder().method(method).uri("/health").body(Body::empty());
        ask(&app, request.unwrap()).await.refused(405);
    }
    let told = get(&app, "/metrics").await.text;
    for line in [
        "mlxk_requests_total{method=\"POST\",route=\"/v1/chat/completions\",status=\"200\"} 1",
        "mlxk_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 1",
        "mlxk_requests_total{method=\"other\",route=\"/health\",status=\"405\"} 3",
        "mlxk_completion_tokens_total 3",
        "mlxk_time_to_first_token_seconds_count 1",
        "mlxk_inter_token_seconds_count 2",
        "mlxk_requests_waiting 0",
        "mlxk_kv_bytes 0",
        "mlxk_prefix_cache_bytes 0",
        "mlxk_resident_memory_bytes ",
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
}

#[tokio::test]
async fn what_was_written_counts_also_if_nobody_waits_for_the_rest() {
    let paced = Script::new().with("slow", vec![text("a "); 1000]);
    let app = App::new(paced.pace(Duration::from_millis(1)), settings());
    let body = json!({
        "model": "slow", "messages": [{"role": "user", "content": "Hi"}], "logprobs": true,
    });
    let answer = post(&app, "/v1/chat/completions", body);
    tokio::time::timeout(Duration::from_millis(200), answer).await.unwrap_err();
    let told = get(&app, "/metrics").await.text;
    let count = |name: &str| -> u64 {
        let line = told.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    assert_eq!(count("mlxk_answers_total{reason=\"cancelled\"}"), 1);
    assert_eq!(count("mlxk_prompt_tokens_total"), 7);
    let (written, between) =
        (count("mlxk_completion_tokens_total"), count("mlxk_inter_token_seconds_count"));
    assert!(written > 0 && between == written - 1, "{told}");
}
