//! What a client of the test Hub sees: answers, refusals, ranges, faults, and what is noted of it.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mlxk_testhub::{Access, Fault, Hub, OWNER, Origin, Rule, STRANGER};
use serde_json::Value;

const CONFIG: &str = "/org/M/resolve/main/config.json";
const WEIGHTS: &str = "/org/M/resolve/main/model.safetensors";

/// An answer: status, head, and as much of the body as came.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn ask(at: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(at.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n");
    write!(stream, "{head}content-length: {length}\r\n{headers}\r\n{body}").unwrap();
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
    }
    let end = all.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: all.split_off(end + 4) }
}

fn get(hub: &Hub, path: &str, headers: &str) -> Answer {
    ask(hub.endpoint(), "GET", path, headers, "")
}

/// Follows the redirect that `path` gives.
fn fetch(hub: &Hub, path: &str, headers: &str) -> Answer {
    let first = get(hub, path, "");
    let to = first.header("location").unwrap();
    match to.strip_prefix(hub.storage()) {
        Some(path) => ask(hub.storage(), "GET", path, headers, ""),
        None => get(hub, to, headers),
    }
}

fn hub() -> Hub {
    let hub = Hub::start();
    let weights: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    hub.repo("org/M").file("config.json", "{}").file("model.safetensors", weights);
    hub
}

fn as_owner() -> String {
    format!("authorization: Bearer {OWNER}\r\n")
}

#[test]
fn a_repository_is_described_and_its_files_are_where_they_are_said_to_be() {
    let hub = hub();
    let info = get(&hub, "/api/models/org/M/revision/main", "").json();
    assert_eq!(info["sha"], hub.repo("org/M").commit());
    assert_eq!(info["siblings"][1]["rfilename"], "model.safetensors");
    let first = get(&hub, WEIGHTS, "");
    assert_eq!((first.status, first.header("x-linked-size")), (302, Some("100000")));
    assert!(first.header("location").unwrap().starts_with(hub.storage()));
    assert_eq!(fetch(&hub, WEIGHTS, "").body.len(), 100_000);
    let small = fetch(&hub, CONFIG, "");
    let oid = "\"9e26dfeeb6e641a33dae4961196235bdb965b21b\""; // git hash-object
    assert_eq!((small.body, first.status), (b"{}".to_vec(), 302));
    assert_eq!(get(&hub, CONFIG, "").header("x-linked-etag"), Some(oid));
}

#[test]
fn a_tree_is_told_by_pages() {
    let hub = hub();
    hub.repo("org/M").file("a/b/c.txt", "c").file("../../x", "x");
    let path = |entry: &Value| entry["path"].as_str().unwrap().to_string();
    let root = get(&hub, "/api/models/org/M/tree/main", "").json();
    let names: Vec<_> = root.as_array().unwrap().iter().map(path).collect();
    assert_eq!(names, ["..", "a", "config.json", "model.safetensors"]);
    hub.page(3);
    let mut next = "/api/models/org/M/tree/main?recursive=true".to_string();
    let mut names = Vec::new();
    loop {
        let page = get(&hub, &next, "");
        names.extend(page.json().as_array().unwrap().iter().map(path));
        let Some(link) = page.header("link") else { break };
        let url = link.split(['<', '>']).nth(1).unwrap();
        next = url.strip_prefix(hub.endpoint()).unwrap().to_string();
    }
    let all = ["..", "../..", "../../x", "a", "a/b", "a/b/c.txt", "config.json"];
    assert_eq!(names, [&all[..], &["model.safetensors"]].concat());
}

#[test]
fn ranges_are_served_and_refused() {
    let hub = hub();
    let whole = fetch(&hub, WEIGHTS, "").body;
    for (range, part) in [("10-19", 10..20), ("99990-", 99_990..100_000), ("-5", 99_995..100_000)] {
        let answer = fetch(&hub, WEIGHTS, &format!("range: bytes={range}\r\n"));
        assert_eq!((answer.status, &answer.body[..]), (206, &whole[part]));
    }
    assert_eq!(fetch(&hub, WEIGHTS, "range: bytes=100000-\r\n").status, 416);
    let changed = fetch(&hub, WEIGHTS, "range: bytes=10-19\r\nif-range: \"other\"\r\n");
    assert_eq!((changed.status, changed.body.len()), (200, 100_000));
}

#[test]
fn refusals_are_the_hubs() {
    let hub = hub();
    hub.repo("org/Secret").access(Access::Private).file("a", "a");
    hub.repo("org/Gated").access(Access::Gated).file("a", "a");
    let stranger = format!("authorization: Bearer {STRANGER}\r\n");
    let cases = [
        ("/api/models/org/None", "", 401, None),
        ("/api/models/org/None", &stranger[..], 404, Some("RepoNotFound")),
        ("/api/models/org/Secret", &stranger, 404, Some("RepoNotFound")),
        ("/api/models/org/M", "authorization: Bearer x\r\n", 401, None),
        ("/api/models/org/M/revision/none", "", 404, Some("RevisionNotFound")),
        ("/org/M/resolve/main/none", "", 404, Some("EntryNotFound")),
        ("/api/models/org/Gated", "", 200, None),
        ("/org/Gated/resolve/main/a", "", 401, Some("GatedRepo")),
        ("/org/Gated/resolve/main/a", &stranger, 403, Some("GatedRepo")),
        ("/org/Gated/resolve/main/a", &as_owner(), 307, None),
    ];
    for (path, headers, status, code) in cases {
        let answer = get(&hub, path, headers);
        assert_eq!((answer.status, answer.header("x-error-code")), (status, code), "{path}");
    }
    let storage = get(&hub, WEIGHTS, "").header("location").unwrap().to_string();
    let path = storage.strip_prefix(hub.storage()).unwrap();
    assert_eq!(ask(hub.storage(), "GET", path, &as_owner(), "").status, 400);
}

#[test]
fn what_is_pushed_can_be_fetched() {
    let hub = hub();
    let owner = as_owner();
    let post = |path: &str, body: &str| ask(hub.endpoint(), "POST", path, &owner, body);
    assert_eq!(post("/api/repos/create", r#"{"organization":"org","name":"New"}"#).status, 200);
    assert_eq!(post("/api/repos/create", r#"{"organization":"org","name":"New"}"#).status, 409);
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of abc
    let objects = format!(r#"{{"objects": [{{"oid": "{hash}", "size": 3}}]}}"#);
    let batch = post("/org/New.git/info/lfs/objects/batch", &objects).json();
    let to = batch["objects"][0]["actions"]["upload"]["href"].as_str().unwrap();
    let to = to.strip_prefix(hub.storage()).unwrap();
    assert_eq!(ask(hub.storage(), "PUT", to, "", "abd").status, 400, "another hash");
    assert_eq!(ask(hub.storage(), "PUT", to, "", "abc").status, 200);
    assert_eq!(
        post("/org/New.git/info/lfs/objects/batch", &objects).json()["objects"][0]["actions"],
        Value::Null
    );
    let commit = format!(
        r#"{{"key":"header","value":{{"summary":"s"}}}}
{{"key":"file","value":{{"path":"b.txt","content":"Yg==","encoding":"base64"}}}}
{{"key":"lfsFile","value":{{"path":"a.bin","algo":"sha256","oid":"{hash}","size":3}}}}"#
    );
    let answer = post("/api/models/org/New/commit/main", &commit);
    assert_eq!(answer.json()["commitOid"], hub.repo("org/New").commit());
    let files = hub.repo("org/New").files("main");
    assert_eq!(files, [("a.bin".into(), "abc".into()), ("b.txt".into(), "b".into())]);
}

#[test]
fn faults_meet_the_requests_they_are_for() {
    let hub = hub();
    let bytes = |fault: Fault| {
        hub.behave();
        hub.fault(Rule::on("/objects/").after(1).times(1), fault);
        let all = [1, 2, 3].map(|_| fetch(&hub, WEIGHTS, "range: bytes=1000-\r\n"));
        assert_eq!((all[0].body.len(), all[2].body.len()), (99_000, 99_000));
        let [first, second, _] = all;
        (first.body, second)
    };
    assert_eq!(bytes(Fault::Cut { after: 500 }).1.body.len(), 500);
    assert_eq!(bytes(Fault::Stall { after: 500 }).1.body.len(), 500);
    assert_eq!(bytes(Fault::IgnoreRange).1.status, 200);
    assert_eq!(bytes(Fault::Status { code: 503, retry_after: Some(7) }).1.status, 503);
    assert_eq!(bytes(Fault::Shorter { by: 10 }).1.body.len(), 98_990);
    let longer = bytes(Fault::Longer { by: 10 }).1;
    assert_eq!((longer.header("content-length"), longer.body.len()), (Some("99010"), 99_000));
    let (right, wrong) = bytes(Fault::Corrupt { at: 2000 });
    let differs: Vec<_> = (0..99_000).filter(|at| right[*at] != wrong.body[*at]).collect();
    assert_eq!(differs, [1000]);
    let etag = bytes(Fault::NewEtag).1;
    assert_ne!(etag.header("etag"), fetch(&hub, WEIGHTS, "").header("etag"));
}

#[test]
fn it_is_noted_who_asked_for_what_and_what_was_sent() {
    let hub = hub();
    fetch(&hub, WEIGHTS, "range: bytes=0-9\r\n");
    get(&hub, "/api/models/org/M", &as_owner());
    let [redirect, bytes, info] = &hub.requests()[..] else { panic!("three requests") };
    assert_eq!((redirect.origin, redirect.status), (Origin::Api, 302));
    assert_eq!((bytes.origin, bytes.range.as_deref()), (Origin::Storage, Some("bytes=0-9")));
    assert_eq!(info.authorization, Some(format!("Bearer {OWNER}")));
    assert_eq!(hub.served("/objects/"), 10);
    hub.forget();
    assert!(hub.requests().is_empty());
}

#[test]
fn another_process_plans_faults_and_reads_the_requests() {
    let hub = hub();
    let json = "content-type: application/json\r\n";
    let plan = r#"{"path": "config.json", "fault": {"status": {"code": 500}}}"#;
    assert_eq!(ask(hub.endpoint(), "POST", "/_hub/faults", json, plan).status, 200);
    assert_eq!(get(&hub, CONFIG, "").status, 500);
    ask(hub.endpoint(), "DELETE", "/_hub/faults", "", "");
    assert_eq!(get(&hub, CONFIG, "").status, 307);
    assert_eq!(get(&hub, "/_hub/requests", "").json().as_array().unwrap().len(), 2);
}
