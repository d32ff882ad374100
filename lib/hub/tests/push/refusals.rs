//! Pushes that are refused, and files that are never sent.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use mlxk_core::Kind;
use mlxk_core::Progress;
use mlxk_hub::push::{PushOptions, check, push};
use mlxk_testhub::{self as testhub, OWNER, STRANGER};
use serde_json::json;
use tempfile::TempDir;

use crate::env::{
    MIB, change, client, content, noise, options, paths, push_with, pushed, requests, workspace,
    write,
};

#[test]
fn no_rule_can_include_private_files() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    write(&dir, ".hfignore", "!.mlxk_workspace.json\n!.hf_cache\n!.hf_cache/**\n!.hfignore\n");
    write(&dir, ".mlxk.AbCdEf.tmp", "what a run that was killed left");
    pushed(&hub, &dir, &options("org/Own"));
    let left = paths(&hub, "org/Own", "main");
    assert!(left.contains(&".hfignore".to_owned()));
    assert!(!left.iter().any(|path| path.contains("mlxk") || path.contains("hf_cache")));
    symlink(".mlxk_workspace.json", dir.path().join("innocent.json")).unwrap();
    let e = push_with(&hub, &dir, &options("org/Own")).unwrap_err();
    assert!(e.subject.ends_with("innocent.json"), "{e}");
}

#[test]
fn a_public_repository_is_refused_for_a_private_push() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    hub.repo("org/Open").file("x", "x");
    let e = push_with(&hub, &dir, &options("org/Open")).unwrap_err();
    assert_eq!((e.kind, &*e.subject), (Kind::AccessDenied, "org/Open"));
    assert_eq!(paths(&hub, "org/Open", "main"), ["x"]);
    let public = PushOptions { private: false, ..options("org/Open") };
    assert_eq!(pushed(&hub, &dir, &public).change, change(4, 0, 0));
}

#[test]
fn repositories_and_branches_are_created_only_on_request() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    let e =
        push_with(&hub, &dir, &PushOptions { create: false, ..options("org/Absent") }).unwrap_err();
    assert_eq!(e.kind, Kind::RepoNotFound);
    pushed(&hub, &dir, &options("org/There"));
    write(&dir, "more.txt", "more");
    let branch = PushOptions { branch: "next/one".into(), ..options("org/There") };
    let e = push_with(&hub, &dir, &PushOptions { create: false, ..branch.clone() }).unwrap_err();
    assert_eq!((e.kind, &*e.subject), (Kind::HashNotFound, "org/There@next/one"));
    assert_eq!(pushed(&hub, &dir, &branch).change, change(1, 0, 0));
    assert_eq!(paths(&hub, "org/There", "next/one").len(), 5);
    assert_eq!(paths(&hub, "org/There", "main").len(), 4);
}

#[test]
fn a_concurrent_commit_is_not_overwritten() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &options("org/Busy"));
    write(&dir, "config.json", "{}");
    write(&dir, "model.safetensors", noise(MIB));
    let client = client(&hub, OWNER);
    let other = |event: Progress| {
        if let Progress::Plan { .. } = event {
            hub.repo("org/Busy").file("theirs.txt", "theirs");
        }
    };
    let e = push(&client, dir.path(), &options("org/Busy"), &other).unwrap_err();
    assert_eq!(e.kind, Kind::UploadFailed, "{e}");
    assert_eq!(content(&hub, "org/Busy", "config.json"), b"{\"model_type\": \"llama\"}\n");
    assert_eq!(pushed(&hub, &dir, &options("org/Busy")).change, change(0, 2, 0));
    assert_eq!(content(&hub, "org/Busy", "theirs.txt"), b"theirs");
}

#[test]
fn a_file_that_changes_during_the_push_fails_it() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    pushed(&hub, &dir, &options("org/Moving"));
    write(&dir, "model.safetensors", noise(MIB));
    for file in ["model.safetensors", "config.json"] {
        write(&dir, "config.json", "{\"a\": 1}");
        let changed = AtomicBool::new(false);
        let progress = |event: Progress| {
            if let (Progress::Plan { .. }, false) = (event, changed.load(Ordering::Relaxed)) {
                changed.store(true, Ordering::Relaxed);
                write(&dir, file, "other");
            }
        };
        let e =
            push(&client(&hub, OWNER), dir.path(), &options("org/Moving"), &progress).unwrap_err();
        assert!(e.subject.ends_with(file) && e.message.contains("changed while"), "{e}");
        write(&dir, "model.safetensors", noise(2 * MIB));
    }
    let there = content(&hub, "org/Moving", "config.json");
    assert_eq!(there, b"{\"model_type\": \"llama\"}\n", "nothing was committed");
}

#[test]
fn files_that_cannot_be_pushed_are_named() {
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
        let e = push_with(&hub, &dir, &options("org/Bad")).unwrap_err();
        assert!(e.subject.ends_with(subject) && e.message.contains(reason), "{e}");
    }
    let empty = TempDir::new().unwrap();
    let e = push_with(&hub, &empty, &options("org/Bad")).unwrap_err();
    assert!(e.message.contains("no file in it"), "{e}");
    let dir = workspace();
    for (repo, branch) in
        [("../x/y", "main"), ("a b", "main"), ("alone", "main"), ("org/x", "a..b c")]
    {
        let options = PushOptions { branch: branch.into(), ..options(repo) };
        assert_eq!(push_with(&hub, &dir, &options).unwrap_err().kind, Kind::Validation);
    }
    let silent = PushOptions { message: " ".into(), ..options("org/Bad") };
    assert_eq!(push_with(&hub, &dir, &silent).unwrap_err().kind, Kind::Validation);
    let link = workspace();
    symlink("config.json", link.path().join("link.json")).unwrap();
    pushed(&hub, &link, &options("org/Linked"));
    assert_eq!(content(&hub, "org/Linked", "link.json"), b"{\"model_type\": \"llama\"}\n");
    assert_eq!(requests(&hub, "POST", "/repos/create"), 1, "nothing was made for the others");
}

#[test]
fn a_token_without_write_access_changes_nothing() {
    let (hub, dir) = (testhub::Hub::start(), workspace());
    hub.repo("org/Open").file("x", "x");
    let public = PushOptions { private: false, ..options("org/Open") };
    for token in [STRANGER, "hf_wrong"] {
        let e = push(&client(&hub, token), dir.path(), &public, &|_| {}).unwrap_err();
        assert_eq!(e.kind, Kind::AccessDenied, "{e}");
        assert!(!e.to_string().contains(token) && !format!("{e:?}").contains(token));
    }
    assert_eq!(paths(&hub, "org/Open", "main"), ["x"]);
}

#[test]
fn the_check_reports_anomalies_without_a_network() {
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

#[test]
fn an_ignore_file_that_is_no_file_is_not_opened() {
    let dir = workspace();
    let made = Command::new("mkfifo").arg(dir.path().join(".hfignore")).status().unwrap();
    assert!(made.success());
    let e = check(dir.path()).unwrap_err();
    assert_eq!((e.kind, &*e.message), (Kind::Validation, "not a regular file"));
}
