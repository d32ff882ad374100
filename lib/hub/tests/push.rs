//! Pushing to a Hub on this machine: what arrives, what is left alone, and what goes wrong.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mlxk_core::remote::{Remote, Token};
use mlxk_core::store::sentinel::{self, Made};
use mlxk_core::{Error, Kind};
use mlxk_hub::push::{Change, Pushed, Wish, check, push};
use mlxk_hub::{Event, Hub};
use mlxk_testhub::{self as testhub, Fault, OWNER, Origin, Rule, STRANGER};
use serde_json::json;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

fn client(hub: &testhub::Hub, token: &str) -> Hub {
    let remote = Remote {
        endpoint: hub.endpoint().to_owned(),
        token: Token::new(token),
        offline: false,
        xet: false,
        shared_blobs: false,
        silence: Duration::from_secs(5),
        proxy: None,
    };
    Hub::new(remote, || false).unwrap()
}

fn wish(repo: &str) -> Wish {
    Wish {
        repo: repo.into(),
        branch: "main".into(),
        message: "test".into(),
        private: true,
        create: true,
        delete_missing: false,
        dry_run: false,
    }
}

fn push_with(hub: &testhub::Hub, dir: &TempDir, wish: &Wish) -> Result<Pushed, Error> {
    push(&client(hub, OWNER), dir.path(), wish, &|_| {})
}

fn pushed(hub: &testhub::Hub, dir: &TempDir, wish: &Wish) -> Pushed {
    push_with(hub, dir, wish).unwrap()
}

fn write(dir: &TempDir, path: &str, content: impl AsRef<[u8]>) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A workspace with large and small files, and much that is not to be pushed.
fn workspace() -> TempDir {
    let dir = TempDir::new().unwrap();
    write(&dir, "config.json", "{\"model_type\": \"llama\"}\n");
    write(&dir, "sub/ä b.txt", "hello");
    write(&dir, "empty.bin", "");
    write(&dir, "model.safetensors", noise(3 * MIB + 7));
    for ignored in [
        ".git/HEAD",
        ".DS_Store",
        ".gitignore",
        "sub/__pycache__/x.pyc",
        "venv/bin/python",
        "y.pyc",
        ".hf_cache/hub/x",
        ".cache/huggingface/download/x",
    ] {
        write(&dir, ignored, "not for others");
    }
    sentinel::manage(dir.path(), &Made { operation: "clone", ..Made::default() }).unwrap();
    dir
}

fn noise(size: usize) -> Vec<u8> {
    (0..size as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// The paths that the Hub has.
fn paths(hub: &testhub::Hub, repo: &str, revision: &str) -> Vec<String> {
    let files = hub.repo(repo).files(revision).into_iter().map(|(path, _)| path);
    files.filter(|path| path != ".gitattributes").collect()
}

fn content(hub: &testhub::Hub, repo: &str, path: &str) -> Vec<u8> {
    let files = hub.repo(repo).files("main");
    files.into_iter().find(|(name, _)| name == path).unwrap().1.to_vec()
}

/// Requests whose path contains `part`.
fn asked(hub: &testhub::Hub, method: &str, part: &str) -> usize {
    let requests = hub.requests();
    requests.iter().filter(|r| r.method == method && r.path.contains(part)).count()
}

fn change(added: usize, modified: usize, deleted: usize) -> Change {
    Change { added, modified, deleted }
}

#[test]
fn a_new_model_arrives_whole_private_and_in_one_commit() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    let result = pushed(&hub, &dir, &wish("org/New"));
    let made = result.made.clone().unwrap();
    assert_eq!((result.change, result.no_repo), (change(4, 0, 0), true));
    let files = ["config.json", "empty.bin", "model.safetensors", "sub/ä b.txt"];
    assert_eq!(paths(&hub, "org/New", "main"), files);
    for file in files {
        assert_eq!(content(&hub, "org/New", file), fs::read(dir.path().join(file)).unwrap());
    }
    assert_eq!(hub.repo("org/New").commit(), made.commit);
    assert_eq!(asked(&hub, "POST", "/commit/"), 1);
    let stranger = push(&client(&hub, STRANGER), dir.path(), &wish("org/New"), &|_| {});
    assert!(stranger.is_err(), "a stranger does not even see it");
    let storage: Vec<_> =
        hub.requests().into_iter().filter(|r| r.origin == Origin::Storage).collect();
    assert!(!storage.is_empty());
    assert!(storage.into_iter().all(|request| request.authorization.is_none()));
}

#[test]
fn what_the_hub_has_is_not_sent_again() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &wish("org/Same"));
    hub.forget();
    let again = pushed(&hub, &dir, &wish("org/Same"));
    assert!(again.unchanged && again.made.is_none());
    assert_eq!(again.message(), "no changes");
    assert!(hub.requests().iter().all(|request| request.method == "GET"), "nothing is sent");
    write(&dir, "config.json", "{\"model_type\": \"other\"}\n");
    write(&dir, "more.txt", "more");
    let changed = pushed(&hub, &dir, &wish("org/Same"));
    assert_eq!(changed.change, change(1, 1, 0));
    assert_eq!(asked(&hub, "PUT", "/"), 0, "the large file is there");
    // Under another name, its content is there all the same.
    fs::rename(dir.path().join("model.safetensors"), dir.path().join("w.safetensors")).unwrap();
    let renamed = pushed(&hub, &dir, &wish("org/Same"));
    assert_eq!((renamed.change, asked(&hub, "PUT", "/")), (change(1, 0, 0), 0));
}

#[test]
fn a_dry_run_computes_what_differs_and_touches_nothing() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    let dry = |repo: &str| Wish { dry_run: true, create: false, ..wish(repo) };
    let new = pushed(&hub, &dir, &dry("org/Absent"));
    assert_eq!(new.change, change(4, 0, 0));
    let record = new.record();
    assert_eq!(record.get("would_create_repo"), Some(&json!(true)));
    assert_eq!(record.get("would_create_branch"), Some(&json!(true)));
    pushed(&hub, &dir, &wish("org/There"));
    let before = hub.repo("org/There").commit();
    write(&dir, "model.safetensors", noise(3 * MIB + 8)); // another size
    write(&dir, "sub/ä b.txt", "HELLO"); // the same size
    fs::remove_file(dir.path().join("config.json")).unwrap();
    write(&dir, "new.txt", "new");
    hub.forget();
    let record = pushed(&hub, &dir, &dry("org/There")).record();
    let summary = json!({"added": 1, "modified": 2, "deleted": 1});
    assert_eq!(record.get("dry_run_summary"), Some(&summary));
    assert_eq!(record.get("added_files"), Some(&json!(["new.txt"])));
    assert_eq!(record.get("deleted_files"), Some(&json!(["config.json"])));
    assert_eq!(record.str("message"), Some("dry-run: +1 ~2 -1, kept on the Hub"));
    assert!(hub.requests().iter().all(|request| request.method == "GET"));
    assert_eq!(hub.repo("org/There").commit(), before);
    let branch = Wish { branch: "next".into(), ..dry("org/There") };
    let record = pushed(&hub, &dir, &branch).record();
    assert_eq!(record.get("would_create_branch"), Some(&json!(true)));
    assert_eq!(record.get("dry_run_summary"), Some(&summary), "a branch begins at main");
}

#[test]
fn missing_files_go_only_if_asked_and_never_what_is_ignored() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &wish("org/Less"));
    hub.repo("org/Less").file(".gitignore", "x").file("notes/old.txt", "old").file("k.log", "x");
    write(&dir, ".hfignore", "# what the machine writes\n*.log\n!.gitignore\n");
    write(&dir, ".gitignore", "mine");
    write(&dir, "z.log", "log");
    assert_eq!(pushed(&hub, &dir, &wish("org/Less")).change, change(0, 1, 0));
    let deleting = Wish { delete_missing: true, ..wish("org/Less") };
    assert_eq!(pushed(&hub, &dir, &deleting).change, change(0, 0, 1));
    let left = paths(&hub, "org/Less", "main");
    assert!(left.contains(&"k.log".to_owned()) && left.contains(&".gitignore".to_owned()));
    assert!(!left.iter().any(|path| path.starts_with("notes/") || path == "z.log"), "{left:?}");
}

#[test]
fn no_rule_takes_in_what_tells_of_this_machine() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    write(&dir, ".hfignore", "!.mlxk_workspace.json\n!.hf_cache\n!.hf_cache/**\n!.hfignore\n");
    pushed(&hub, &dir, &wish("org/Own"));
    let left = paths(&hub, "org/Own", "main");
    assert!(left.contains(&".hfignore".to_owned()));
    assert!(!left.iter().any(|path| path.contains("mlxk") || path.contains("hf_cache")));
    symlink(".mlxk_workspace.json", dir.path().join("innocent.json")).unwrap();
    let e = push_with(&hub, &dir, &wish("org/Own")).unwrap_err();
    assert!(e.subject.ends_with("innocent.json"), "{e}");
}

#[test]
fn a_public_repository_is_refused_unless_that_is_meant() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    hub.repo("org/Open").file("x", "x");
    let e = push_with(&hub, &dir, &wish("org/Open")).unwrap_err();
    assert_eq!((e.kind, &*e.subject), (Kind::AccessDenied, "org/Open"));
    assert_eq!(paths(&hub, "org/Open", "main"), ["x"]);
    let meant = Wish { private: false, ..wish("org/Open") };
    assert_eq!(pushed(&hub, &dir, &meant).change, change(4, 0, 0));
}

#[test]
fn what_is_not_there_is_made_only_if_asked() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    let e = push_with(&hub, &dir, &Wish { create: false, ..wish("org/Absent") }).unwrap_err();
    assert_eq!(e.kind, Kind::RepoNotFound);
    pushed(&hub, &dir, &wish("org/There"));
    write(&dir, "more.txt", "more");
    let branch = Wish { branch: "next/one".into(), ..wish("org/There") };
    let e = push_with(&hub, &dir, &Wish { create: false, ..branch.clone() }).unwrap_err();
    assert_eq!((e.kind, &*e.subject), (Kind::HashNotFound, "org/There@next/one"));
    assert_eq!(pushed(&hub, &dir, &branch).change, change(1, 0, 0));
    assert_eq!(paths(&hub, "org/There", "next/one").len(), 5);
    assert_eq!(paths(&hub, "org/There", "main").len(), 4);
}

#[test]
fn a_large_file_goes_in_parts_and_each_part_until_it_arrives() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    write(&dir, "model.safetensors", noise(50 * MIB));
    let failing = Fault::Status { code: 503, retry_after: Some(0) };
    hub.fault(Rule::on("/uploads/").times(2), failing.clone());
    hub.fault(Rule::on("/info/lfs/complete").times(1), failing.clone());
    hub.fault(Rule::on("/preupload/").times(1), failing);
    let moved = Mutex::new((0i64, 0u64));
    let told = |event: Event| {
        let mut moved = moved.lock().unwrap();
        match event {
            Event::Plan { bytes, .. } => moved.1 = bytes,
            Event::Moved { bytes, .. } => moved.0 += bytes as i64,
            Event::Lost { bytes, .. } => moved.0 -= bytes as i64,
            _ => {}
        }
    };
    push(&client(&hub, OWNER), dir.path(), &wish("org/Large"), &told).unwrap();
    assert!(content(&hub, "org/Large", "model.safetensors") == noise(50 * MIB));
    assert_eq!(asked(&hub, "PUT", "/uploads/"), 4 + 2, "four parts, two of them twice");
    assert_eq!(moved.into_inner().unwrap(), (50 * MIB as i64, 50 * MIB as u64));
}

#[test]
fn a_push_that_was_broken_off_goes_on_with_what_is_there() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    write(&dir, "second.safetensors", noise(2 * MIB));
    let refuse = Fault::Status { code: 403, retry_after: None };
    hub.fault(Rule::on("/commit/"), refuse);
    let e = push_with(&hub, &dir, &wish("org/Broken")).unwrap_err();
    assert_eq!((e.kind, &*e.subject), (Kind::AccessDenied, "org/Broken"));
    assert!(paths(&hub, "org/Broken", "main").is_empty(), "no commit, nothing there");
    assert_eq!(asked(&hub, "PUT", "/uploads/"), 2);
    hub.behave();
    hub.forget();
    assert_eq!(pushed(&hub, &dir, &wish("org/Broken")).change, change(5, 0, 0));
    assert_eq!(asked(&hub, "PUT", "/uploads/"), 0);
}

#[test]
fn an_answer_that_is_lost_makes_no_second_commit() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &wish("org/Lost"));
    write(&dir, "config.json", "{}");
    hub.fault(Rule::on("/commit/").times(1), Fault::Cut { after: 0 });
    let result = pushed(&hub, &dir, &wish("org/Lost"));
    assert_eq!(asked(&hub, "POST", "/commit/"), 2, "one each");
    assert_eq!(result.made.unwrap().commit, hub.repo("org/Lost").commit());
}

#[test]
fn a_commit_of_somebody_else_in_between_is_not_overwritten() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &wish("org/Busy"));
    write(&dir, "config.json", "{}");
    write(&dir, "model.safetensors", noise(MIB));
    let client = client(&hub, OWNER);
    let other = |event: Event| {
        if let Event::Plan { .. } = event {
            hub.repo("org/Busy").file("theirs.txt", "theirs");
        }
    };
    let e = push(&client, dir.path(), &wish("org/Busy"), &other).unwrap_err();
    assert_eq!(e.kind, Kind::UploadFailed, "{e}");
    assert_eq!(content(&hub, "org/Busy", "config.json"), b"{\"model_type\": \"llama\"}\n");
    assert_eq!(pushed(&hub, &dir, &wish("org/Busy")).change, change(0, 2, 0));
    assert_eq!(content(&hub, "org/Busy", "theirs.txt"), b"theirs");
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &wish("org/Moving"));
    write(&dir, "model.safetensors", noise(MIB));
    for file in ["model.safetensors", "config.json"] {
        write(&dir, "config.json", "{\"a\": 1}");
        let changed = AtomicBool::new(false);
        let told = |event: Event| {
            if let (Event::Plan { .. }, false) = (event, changed.load(Ordering::Relaxed)) {
                changed.store(true, Ordering::Relaxed);
                write(&dir, file, "other");
            }
        };
        let e = push(&client(&hub, OWNER), dir.path(), &wish("org/Moving"), &told).unwrap_err();
        assert!(e.subject.ends_with(file) && e.message.contains("changed while"), "{e}");
        write(&dir, "model.safetensors", noise(2 * MIB));
    }
    let there = content(&hub, "org/Moving", "config.json");
    assert_eq!(there, b"{\"model_type\": \"llama\"}\n", "nothing was committed");
}

#[test]
fn what_cannot_be_pushed_is_refused_by_name() {
    let hub = testhub::Hub::start();
    type Spoil = fn(&Path);
    let cases: [(Spoil, &str, &str); 6] = [
        (|dir| symlink("/etc/hostname", dir.join("out")).unwrap(), "out", "out of the workspace"),
        (|dir| symlink("nothing", dir.join("dead")).unwrap(), "dead", "No such file"),
        (|dir| symlink("sub", dir.join("ldir")).unwrap(), "ldir", "link to a directory"),
        (|dir| fs::write(dir.join("a\\b"), "x").unwrap(), "a\\b", "backslash"),
        (|dir| fs::write(dir.join(".hfignore"), "[z-a]").unwrap(), ".hfignore", "[z-a]"),
        (|dir| fs::write(dir.join(".hfignore"), b"\xff").unwrap(), ".hfignore", "UTF-8"),
    ];
    for (spoil, subject, reason) in cases {
        let dir = workspace();
        spoil(dir.path());
        let e = push_with(&hub, &dir, &wish("org/Bad")).unwrap_err();
        assert!(e.subject.ends_with(subject) && e.message.contains(reason), "{e}");
    }
    let empty = TempDir::new().unwrap();
    let e = push_with(&hub, &empty, &wish("org/Bad")).unwrap_err();
    assert!(e.message.contains("no file in it"), "{e}");
    let dir = workspace();
    for (repo, branch) in
        [("../x/y", "main"), ("a b", "main"), ("alone", "main"), ("org/x", "a..b c")]
    {
        let wish = Wish { branch: branch.into(), ..wish(repo) };
        assert_eq!(push_with(&hub, &dir, &wish).unwrap_err().kind, Kind::Validation);
    }
    let silent = Wish { message: " ".into(), ..wish("org/Bad") };
    assert_eq!(push_with(&hub, &dir, &silent).unwrap_err().kind, Kind::Validation);
    let link = workspace();
    symlink("config.json", link.path().join("link.json")).unwrap();
    pushed(&hub, &link, &wish("org/Linked"));
    assert_eq!(content(&hub, "org/Linked", "link.json"), b"{\"model_type\": \"llama\"}\n");
    assert_eq!(asked(&hub, "POST", "/repos/create"), 1, "nothing was made for the others");
}

#[test]
fn a_token_that_may_not_write_changes_nothing() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    hub.repo("org/Open").file("x", "x");
    let meant = Wish { private: false, ..wish("org/Open") };
    for token in [STRANGER, "hf_wrong"] {
        let e = push(&client(&hub, token), dir.path(), &meant, &|_| {}).unwrap_err();
        assert_eq!(e.kind, Kind::AccessDenied, "{e}");
        assert!(!e.to_string().contains(token) && !format!("{e:?}").contains(token));
    }
    assert_eq!(paths(&hub, "org/Open", "main"), ["x"]);
}

#[test]
fn a_look_tells_what_is_wrong_without_asking_anybody() {
    let dir = workspace();
    write(&dir, "model.safetensors.index.json", r#"{"weight_map": {"a": "gone.safetensors"}}"#);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:";
    write(&dir, "tok.model", format!("{pointer}{}\nsize 12\n", "0".repeat(64)));
    write(&dir, "x.partial", "x");
    let record = check(dir.path()).unwrap();
    let anomalies = record.get("anomalies").unwrap().as_array().unwrap();
    let codes: Vec<_> = anomalies.iter().map(|a| a["code"].as_str().unwrap()).collect();
    let expected =
        ["empty_weight_file", "lfs_pointer_detected", "partial_marker", "index_missing_shard"];
    assert_eq!(codes, expected);
    assert_eq!(record.get("healthy"), Some(&json!(false)));
    assert_eq!(record.get("files_count"), Some(&json!(7)));
    let weights = record.get("weights").unwrap();
    assert_eq!(
        (&weights["count"], &weights["formats"]),
        (&json!(2), &json!(["bin", "safetensors"]))
    );
    assert_eq!(weights["index"], json!({"has_index": true, "missing": ["gone.safetensors"]}));
    assert_eq!(weights["pattern_complete"], false);
    let config = record.get("config").unwrap();
    assert_eq!((&config["exists"], &config["valid_json"]), (&json!(true), &json!(true)));
    fs::remove_file(dir.path().join("config.json")).unwrap();
    let record = check(dir.path()).unwrap();
    assert_eq!(record.get("config").unwrap()["exists"], false);
}
