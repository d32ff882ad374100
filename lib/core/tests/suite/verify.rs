//! Verification of every file of a model.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::{Env, Snapshot, sha256};
use mlxk_core::digest::Hasher;
use mlxk_core::store::tree::{Entry, Tree};
use mlxk_core::verify::{Reason, Verdict, verify};
use mlxk_core::workspace::sentinel::{self, Made};
use mlxk_core::{Found, Origin, Progress, probe};
use serde_json::json;

fn check(found: &Found) -> Verdict {
    verify(&probe::read(found).unwrap(), &|_| {})
}

fn found(snapshot: &Snapshot) -> Found {
    Found {
        name: "org/model".into(),
        path: snapshot.path.clone(),
        revision: Some(snapshot.revision.clone()),
        origin: Origin::Cache { repo: snapshot.repo.clone() },
    }
}

fn workspace(path: std::path::PathBuf) -> Found {
    Found { name: path.display().to_string(), path, revision: None, origin: Origin::Workspace }
}

/// The path and the defect of every bad file.
fn bad(verdict: &Verdict) -> Vec<(&str, Reason)> {
    verdict.bad.iter().map(|bad| (&*bad.path, bad.reason)).collect()
}

/// The Git blob id of the content.
fn git(content: &str) -> String {
    let mut hasher = Hasher::git(content.len() as u64);
    hasher.update(content.as_bytes());
    hasher.finish().to_string()
}

fn listed(snapshot: &Snapshot, files: &[(&str, &str, bool)]) {
    let entry = |content: &str, lfs: bool| Entry {
        size: content.len() as u64,
        blob_id: git(content),
        lfs_sha256: lfs.then(|| sha256(content.as_bytes())),
        lfs_size: lfs.then_some(content.len() as u64),
        xet_hash: None,
    };
    let files = files.iter().map(|(path, content, lfs)| ((*path).into(), entry(content, *lfs)));
    let path = Tree::path(&snapshot.repo, &snapshot.revision);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serde_json::to_string(&Tree::new(files.collect())).unwrap()).unwrap();
}

#[test]
fn a_blob_whose_content_is_not_its_name_is_named_with_both() {
    let env = Env::new();
    let snapshot = env.snapshot("org/model", '1');
    let snapshot = snapshot.file("config.json", "{}").file("sub/w.bin", "weights").shared("x", "y");
    assert_eq!(check(&found(&snapshot)), Verdict::default());
    let blob = sha256(b"weights");
    fs::write(snapshot.repo.join("blobs").join(&blob), "weighty").unwrap();
    let verdict = check(&found(&snapshot));
    assert_eq!(
        json!(verdict.bad),
        json!([{
            "path": "sub/w.bin", "blob": blob, "expected": blob, "found": sha256(b"weighty"),
            "reason": "content",
        }])
    );
    let payload = sha256(b"y");
    fs::write(env.hub().join("blobs").join(&payload[..2]).join(&payload), "z").unwrap();
    assert_eq!(bad(&check(&found(&snapshot)))[1], ("x", Reason::Content));
}

#[test]
fn what_is_missing_is_named_too() {
    let env = Env::new();
    let index = r#"{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}"#;
    let snapshot = env.snapshot("org/model", '1').file("config.json", "{}");
    let snapshot = snapshot.file("model.safetensors.index.json", index).file("a.safetensors", "a");
    fs::remove_file(snapshot.repo.join("blobs").join(sha256(b"a"))).unwrap();
    listed(&snapshot, &[("b.safetensors", "b", true)]);
    let verdict = check(&found(&snapshot));
    assert_eq!(
        bad(&verdict),
        [("a.safetensors", Reason::Missing), ("b.safetensors", Reason::Missing)]
    );
    let known = [sha256(b"a"), sha256(b"b")].map(Some);
    assert_eq!([0, 1].map(|n: usize| verdict.bad[n].expected.clone()), known);
    assert_eq!(verdict.bad[1].blob, None);
}

#[test]
fn the_list_of_the_hub_overrules_the_names_of_blobs() {
    let env = Env::new();
    let snapshot = env.snapshot("org/model", '1');
    let snapshot = snapshot.file("a", "other").file("b", "short").file("c", "same").file("d", "d");
    let lfs = [("a", "right", true), ("b", "longer", true), ("c", "same", true)];
    listed(&snapshot, &[&lfs[..], &[("e", "not fetched", false)]].concat());
    let verdict = check(&found(&snapshot));
    assert_eq!(bad(&verdict), [("a", Reason::Content), ("b", Reason::Size)]);
    assert_eq!(verdict.bad[0].expected, Some(sha256(b"right")));
    assert_eq!(verdict.bad[0].blob, Some(sha256(b"other")));
    assert_eq!(verdict.bad[0].found, Some(sha256(b"other")));
    assert_eq!(verdict.bad[1].found, None, "it need not be read");
    // A list of another version is ignored.
    fs::write(Tree::path(&snapshot.repo, &snapshot.revision), "{\"format_version\": 2}").unwrap();
    assert_eq!(check(&found(&snapshot)), Verdict::default());
}

#[test]
fn a_small_file_goes_by_its_name_in_git() {
    let env = Env::new();
    let snapshot = env.snapshot("org/model", '1');
    let blob = snapshot.repo.join("blobs").join(git("{}\n"));
    fs::write(&blob, "{}\n").unwrap();
    let link = snapshot.path.join("config.json");
    symlink(format!("../../blobs/{}", git("{}\n")), link).unwrap();
    assert_eq!(check(&found(&snapshot)), Verdict::default());
    fs::write(&blob, "[]\n").unwrap();
    assert_eq!(check(&found(&snapshot)).bad[0].found, Some(git("[]\n")));
}

#[test]
fn what_has_nothing_to_be_compared_with_is_unknown() {
    let env = Env::new();
    let snapshot = env.snapshot("org/model", '1').file("config.json", "{}");
    fs::write(snapshot.path.join("plain.txt"), "hello").unwrap();
    let verdict = check(&found(&snapshot));
    assert_eq!((verdict.bad.len(), verdict.unknown), (0, vec!["plain.txt".into()]));
    let unmanaged = workspace(env.workspace("mine", &[]));
    assert_eq!(check(&unmanaged).unknown, vec![std::path::PathBuf::from("config.json")]);
}

#[test]
fn a_workspace_is_compared_with_its_hash() {
    let env = Env::new();
    let path = env.workspace("mine", &[("a.txt", b"a"), ("b.txt", b"b"), ("c.txt", b"c")]);
    sentinel::manage(&path, &Made { operation: "clone", ..Made::default() }).unwrap();
    assert_eq!(check(&workspace(path.clone())), Verdict::default());
    let same_time = fs::metadata(path.join("a.txt")).unwrap().modified().unwrap();
    fs::write(path.join("a.txt"), "A").unwrap();
    fs::File::open(path.join("a.txt")).unwrap().set_modified(same_time).unwrap();
    fs::remove_file(path.join("b.txt")).unwrap();
    fs::write(path.join("d.txt"), "d").unwrap();
    let verdict = check(&workspace(path.clone()));
    let expected = [("a.txt", Reason::Content), ("b.txt", Reason::Missing), ("d.txt", Reason::New)];
    assert_eq!(bad(&verdict), expected);
    assert_eq!(verdict.bad[0].expected, Some(sha256(b"a")));
    symlink("/etc/passwd", path.join("out")).unwrap();
    assert_eq!(bad(&check(&workspace(path))), [("out", Reason::Unreadable)]);
}

#[test]
fn of_weights_a_hash_knows_the_header_and_only_a_digest_all() {
    let env = Env::new();
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let weights = |last: u8| {
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header, &[0, 0, 0, last]].concat()
    };
    let path = env.workspace("mine", &[("model.safetensors", &weights(1))]);
    let made = Made { operation: "clone", ..Made::default() };
    let mut sentinel = sentinel::manage(&path, &made).unwrap();
    let unknown = Verdict { unknown: vec!["model.safetensors".into()], ..Verdict::default() };
    assert_eq!(check(&workspace(path.clone())), unknown);
    let digest = sha256(&weights(1)).parse().unwrap();
    sentinel.set_digests(&[("model.safetensors".to_owned(), digest)].into());
    sentinel.write(&path).unwrap();
    assert_eq!(check(&workspace(path.clone())), Verdict::default());
    fs::write(path.join("model.safetensors"), weights(2)).unwrap();
    let verdict = check(&workspace(path.clone()));
    assert_eq!(bad(&verdict), [("model.safetensors", Reason::Content)]);
    assert_eq!(verdict.bad[0].expected, Some(sha256(&weights(1))));
    assert_eq!(verdict.bad[0].found, Some(sha256(&weights(2))));
    // A new content hash accepts the current files, so the digests of former files are dropped.
    mlxk_core::workspace::clean::recalculate(&path).unwrap();
    assert_eq!(check(&workspace(path)), unknown);
}

#[test]
fn progress_adds_up_whatever_is_wrong() {
    let env = Env::new();
    let large = "x".repeat(3 << 20);
    let snapshot = env.snapshot("org/model", '1').file("a", &large).file("b", "short");
    listed(&snapshot, &[("b", "longer", true)]);
    let (due, read) = (AtomicU64::new(0), AtomicU64::new(0));
    let facts = probe::read(&found(&snapshot)).unwrap();
    verify(&facts, &|progress| {
        match progress {
            Progress::Due(bytes) => due.fetch_add(bytes, Ordering::Relaxed),
            Progress::Read(bytes) => read.fetch_add(bytes, Ordering::Relaxed),
            other => panic!("{other:?}"),
        };
    });
    assert_eq!(due.into_inner(), (3 << 20) + 5);
    assert_eq!(read.into_inner(), (3 << 20) + 5);
}
