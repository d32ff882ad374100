//! Changes that a push makes on the Hub, and content that it does not send again.

use std::fs;
use std::sync::Mutex;

use mlxk_core::Kind;
use mlxk_core::Progress;
use mlxk_hub::push::{PushOptions, push};
use mlxk_testhub::{self as testhub, Fault, OWNER, Origin, Rule, STRANGER};
use serde_json::json;

use crate::env::{
    MIB, change, client, content, noise, options, paths, push_with, pushed, requests, workspace,
    write,
};

#[test]
fn a_new_model_is_pushed_privately_in_one_commit() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    let result = pushed(&hub, &dir, &options("org/New"));
    let commit = result.commit.clone().unwrap();
    assert_eq!((result.change, result.repo_missing), (change(4, 0, 0), true));
    let files = ["config.json", "empty.bin", "model.safetensors", "sub/ä b.txt"];
    assert_eq!(paths(&hub, "org/New", "main"), files);
    for file in files {
        assert_eq!(content(&hub, "org/New", file), fs::read(dir.path().join(file)).unwrap());
    }
    assert_eq!(hub.repo("org/New").commit(), commit.id);
    assert_eq!(requests(&hub, "POST", "/commit/"), 1);
    let stranger = push(&client(&hub, STRANGER), dir.path(), &options("org/New"), &|_| {});
    assert!(stranger.is_err(), "a stranger does not even see it");
    let storage: Vec<_> =
        hub.requests().into_iter().filter(|r| r.origin == Origin::Storage).collect();
    assert!(!storage.is_empty());
    assert!(storage.into_iter().all(|request| request.authorization.is_none()));
}

#[test]
fn content_that_the_hub_has_is_not_sent_again() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &options("org/Same"));
    hub.forget();
    let again = pushed(&hub, &dir, &options("org/Same"));
    assert!(again.unchanged && again.commit.is_none());
    assert_eq!(again.message(), "no changes");
    assert!(hub.requests().iter().all(|request| request.method == "GET"), "nothing is sent");
    write(&dir, "config.json", "{\"model_type\": \"other\"}\n");
    write(&dir, "more.txt", "more");
    let changed = pushed(&hub, &dir, &options("org/Same"));
    assert_eq!(changed.change, change(1, 1, 0));
    assert_eq!(requests(&hub, "PUT", "/"), 0, "the large file is there");
    // Under another name, its content is there all the same.
    fs::rename(dir.path().join("model.safetensors"), dir.path().join("w.safetensors")).unwrap();
    let renamed = pushed(&hub, &dir, &options("org/Same"));
    assert_eq!((renamed.change, requests(&hub, "PUT", "/")), (change(1, 0, 0), 0));
}

#[test]
fn a_dry_run_reports_differences_and_changes_nothing() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    let dry = |repo: &str| PushOptions { dry_run: true, create: false, ..options(repo) };
    let new = pushed(&hub, &dir, &dry("org/Absent"));
    assert_eq!(new.change, change(4, 0, 0));
    let record = new.record();
    assert_eq!(record.get("would_create_repo"), Some(&json!(true)));
    assert_eq!(record.get("would_create_branch"), Some(&json!(true)));
    pushed(&hub, &dir, &options("org/There"));
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
    let branch = PushOptions { branch: "next".into(), ..dry("org/There") };
    let record = pushed(&hub, &dir, &branch).record();
    assert_eq!(record.get("would_create_branch"), Some(&json!(true)));
    assert_eq!(record.get("dry_run_summary"), Some(&summary), "a branch begins at main");
}

#[test]
fn missing_files_are_deleted_only_on_request_and_ignored_ones_never() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &options("org/Less"));
    hub.repo("org/Less").file(".gitignore", "x").file("notes/old.txt", "old").file("k.log", "x");
    write(&dir, ".hfignore", "# what the machine writes\n*.log\n!.gitignore\n");
    write(&dir, ".gitignore", "mine");
    write(&dir, "z.log", "log");
    assert_eq!(pushed(&hub, &dir, &options("org/Less")).change, change(0, 1, 0));
    let deleting = PushOptions { delete_missing: true, ..options("org/Less") };
    assert_eq!(pushed(&hub, &dir, &deleting).change, change(0, 0, 1));
    let left = paths(&hub, "org/Less", "main");
    assert!(left.contains(&"k.log".to_owned()) && left.contains(&".gitignore".to_owned()));
    assert!(!left.iter().any(|path| path.starts_with("notes/") || path == "z.log"), "{left:?}");
}

#[test]
fn a_large_file_is_sent_in_parts_with_retries() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    write(&dir, "model.safetensors", noise(50 * MIB));
    let failing = Fault::Status { code: 503, retry_after: Some(0) };
    hub.fault(Rule::on("/uploads/").times(2), failing.clone());
    hub.fault(Rule::on("/info/lfs/complete").times(1), failing.clone());
    hub.fault(Rule::on("/preupload/").times(1), failing);
    let moved = Mutex::new((0i64, 0u64));
    let progress = |event: Progress| {
        let mut moved = moved.lock().unwrap();
        match event {
            Progress::Plan { bytes, .. } => moved.1 = bytes,
            Progress::Moved { bytes, .. } => moved.0 += bytes as i64,
            Progress::Lost { bytes, .. } => moved.0 -= bytes as i64,
            _ => {}
        }
    };
    push(&client(&hub, OWNER), dir.path(), &options("org/Large"), &progress).unwrap();
    assert!(content(&hub, "org/Large", "model.safetensors") == noise(50 * MIB));
    assert_eq!(requests(&hub, "PUT", "/uploads/"), 4 + 2, "four parts, two of them twice");
    assert_eq!(moved.into_inner().unwrap(), (50 * MIB as i64, 50 * MIB as u64));
}

#[test]
fn an_interrupted_push_resumes_with_uploaded_content() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    write(&dir, "second.safetensors", noise(2 * MIB));
    let refuse = Fault::Status { code: 403, retry_after: None };
    hub.fault(Rule::on("/commit/"), refuse);
    let e = push_with(&hub, &dir, &options("org/Broken")).unwrap_err();
    assert_eq!((e.kind, &*e.subject), (Kind::AccessDenied, "org/Broken"));
    assert!(paths(&hub, "org/Broken", "main").is_empty(), "no commit, nothing there");
    assert_eq!(requests(&hub, "PUT", "/uploads/"), 2);
    hub.behave();
    hub.forget();
    assert_eq!(pushed(&hub, &dir, &options("org/Broken")).change, change(5, 0, 0));
    assert_eq!(requests(&hub, "PUT", "/uploads/"), 0);
}

#[test]
fn a_lost_response_makes_no_second_commit() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &options("org/Lost"));
    write(&dir, "config.json", "{}");
    hub.fault(Rule::on("/commit/").times(1), Fault::Cut { after: 0 });
    let result = pushed(&hub, &dir, &options("org/Lost"));
    assert_eq!(requests(&hub, "POST", "/commit/"), 2, "one each");
    assert_eq!(result.commit.unwrap().id, hub.repo("org/Lost").commit());
}

#[test]
fn files_that_the_hub_ignores_are_reported() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &options("org/Own"));
    hub.repo("org/Own").file(".gitignore", "secret.txt\n");
    write(&dir, "secret.txt", "x");
    write(&dir, "open.txt", "x");
    let result = pushed(&hub, &dir, &options("org/Own"));
    assert_eq!(
        (result.change, &*result.refused),
        (change(1, 0, 0), &["secret.txt".to_owned()][..])
    );
    assert_eq!(result.record().get("refused_files"), Some(&json!(["secret.txt"])));
}
