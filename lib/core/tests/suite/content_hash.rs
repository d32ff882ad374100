//! The content hash of workspaces, and the comparison of workspaces with it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mlxk_core::workspace::clean::{self, State};
use mlxk_core::workspace::content_hash::{self, EXCLUDED};
use mlxk_core::workspace::sentinel::{self, Made, Sentinel, manage};
use serde_json::{Value, json};
use tempfile::TempDir;

const HEADER: &str = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
const A: &str = "sha256:82eaffaeb43fdbdc36e3942396a91f4273d257e5a63893ea0b9a510191f9043d";
const D: &str = "sha256:212e62363712132f71634be83958b85c4469fdada7997103ba941c94895dfd35";
const E: &str = "sha256:34e1aced02e1a021e543fa087664fdd5875ec836fcfa907ee05e967335ee0af3";
const G: &str = "sha256:d5d86b9542b3d8eb8ca098be56fe6e50d4c4f71cd4d4fb954eaf4a39d41a9c6c";
const H: &str = "sha256:717306472e73198187e7a7cbf987f27f036d281b85dde5b89c3e5a967888bf49";

fn tensors(last: u8) -> Vec<u8> {
    [&54u64.to_le_bytes()[..], HEADER.as_bytes(), &[0, 0, 0, last]].concat()
}

/// A directory with the three files of the published test vectors.
fn workspace() -> TempDir {
    let dir = TempDir::new().unwrap();
    write(&dir, "config.json", "{\"model_type\": \"llama\"}\n");
    write(&dir, "tokenizer.json", "{}\n");
    write(&dir, "model.safetensors", tensors(0));
    dir
}

fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn digest(dir: &TempDir) -> Option<String> {
    content_hash::index(dir.path(), EXCLUDED).ok().map(|index| content_hash::aggregate(&index))
}

fn managed() -> TempDir {
    let dir = workspace();
    let made =
        Made { operation: "convert", source: "/x.gguf", mode: Some("import"), revision: None };
    manage(dir.path(), &made).unwrap();
    dir
}

fn state(dir: &TempDir) -> Option<(bool, Option<String>)> {
    let state = clean::check(dir.path());
    state.map(|State { clean, content_hash }| (clean, content_hash))
}

fn fields(dir: &TempDir) -> Sentinel {
    Sentinel::read(dir.path()).unwrap().unwrap()
}

#[test]
fn agrees_with_the_published_vectors() {
    let dir = workspace();
    let index = content_hash::index(dir.path(), EXCLUDED).unwrap();
    let named: Vec<_> = index.iter().map(|e| (e.path.as_str(), &e.sha[7..15])).collect();
    let a = [
        ("config.json", "4bebf7db"),
        ("model.safetensors", "1df6f7ad"),
        ("tokenizer.json", "ca3d163b"),
    ];
    assert_eq!(named, a);
    assert_eq!(digest(&dir).as_deref(), Some(A));
    write(&dir, "model.safetensors", tensors(7));
    assert_eq!(digest(&dir).as_deref(), Some(A), "the tensors' bytes do not count");
    write(&dir, ".DS_Store", "x");
    write(&dir, ".git/HEAD", "x");
    assert_eq!(digest(&dir).as_deref(), Some(A), "what is excluded does not count");
    write(&dir, "sub/a.txt", "hello\n");
    assert_eq!(digest(&dir).as_deref(), Some(D));
    symlink("sub/a.txt", dir.path().join("link.txt")).unwrap();
    assert_eq!(digest(&dir).as_deref(), Some(E));
    symlink("/etc/passwd", dir.path().join("out")).unwrap();
    assert_eq!(digest(&dir), None, "no hash of what a link leads out of");
    fs::remove_file(dir.path().join("out")).unwrap();
    symlink("sub", dir.path().join("ldir")).unwrap();
    assert_eq!(digest(&dir).as_deref(), Some(G));
    write(&dir, "e\u{301}.txt", "nfd\n");
    assert_eq!(digest(&dir).as_deref(), Some(H));
}

#[test]
fn a_dangling_link_counts_by_where_it_would_lead() {
    let dir = workspace();
    symlink("sub/../not/there", dir.path().join("l")).unwrap();
    assert!(digest(&dir).is_some());
    fs::remove_file(dir.path().join("l")).unwrap();
    symlink("not/../../there", dir.path().join("l")).unwrap();
    assert_eq!(digest(&dir), None);
}

#[test]
fn a_link_to_the_workspace_itself_counts_as_a_dot() {
    let dir = workspace();
    symlink("../.", dir.path().join("up")).unwrap();
    assert_eq!(digest(&dir), None);
    fs::remove_file(dir.path().join("up")).unwrap();
    symlink(".", dir.path().join("self")).unwrap();
    let index = content_hash::index(dir.path(), EXCLUDED).unwrap();
    let entry = index.iter().find(|e| e.path == "self").unwrap();
    // printf 'SYMLINK\0.' | sha256sum
    assert!(entry.sha.starts_with("sha256:078943169bfbc3df"), "{}", entry.sha);
}

#[test]
fn a_huge_file_counts_by_name_and_size() {
    let dir = workspace();
    let huge = File::create(dir.path().join("huge.bin")).unwrap();
    huge.set_len((1 << 30) + 1).unwrap();
    fs::set_permissions(dir.path().join("huge.bin"), fs::Permissions::from_mode(0o000)).unwrap();
    let index = content_hash::index(dir.path(), EXCLUDED).unwrap();
    // printf 'huge.bin\0001073741825' | sha256sum
    let sha = "sha256:38b4e4d090dbaac8";
    let entry = index.iter().find(|e| e.path == "huge.bin").unwrap();
    assert!(entry.sha.starts_with(sha), "{}", entry.sha);
}

#[test]
fn what_cannot_be_hashed_is_an_error() {
    for bad in [&b"short"[..], &[0; 8], &(101u64 << 20).to_le_bytes(), &[9, 0, 0, 0, 0, 0, 0, 0]] {
        let dir = workspace();
        write(&dir, "model.safetensors", bad);
        let e = content_hash::index(dir.path(), EXCLUDED).unwrap_err();
        assert!(e.subject.ends_with("model.safetensors"), "{e}");
    }
    let dir = TempDir::new().unwrap();
    assert_eq!(digest(&dir), None);
}

#[test]
fn a_new_workspace_says_how_it_was_made_and_is_clean() {
    let dir = managed();
    let Sentinel(fields) = fields(&dir);
    let keys: Vec<_> = fields.keys().map(String::as_str).collect();
    let expected = "mlxk_version created_at source_repo source_revision managed operation mode \
                    hash_modified hash_algorithm content_hash exclude_patterns file_index";
    assert_eq!(keys.join(" "), expected);
    assert_eq!((&fields["content_hash"], &fields["source_revision"]), (&json!(A), &Value::Null));
    assert_eq!(fields["created_at"].as_str().unwrap().len(), "2026-01-02T03:04:05.678901Z".len());
    assert_eq!(state(&dir), Some((true, Some(A.to_owned()))));
    let text = fs::read_to_string(dir.path().join(sentinel::NAME)).unwrap();
    assert!(text.starts_with("{\n  \"mlxk_version\"") && text.ends_with("}\n"));
}

#[test]
fn every_change_makes_a_workspace_dirty() {
    let changes: [&dyn Fn(&TempDir); 6] = [
        &|dir| {
            let file = dir.path().join("model.safetensors");
            let written = file.metadata().unwrap().modified().unwrap();
            write(dir, "model.safetensors", [&tensors(0)[..], b"more"].concat());
            File::open(file).unwrap().set_modified(written).unwrap();
        },
        &|dir| drop(write(dir, "new.txt", "hello\n")),
        &|dir| fs::remove_file(dir.path().join("tokenizer.json")).unwrap(),
        &|dir| drop(write(dir, "tokenizer.json", "{ }\n")),
        &|dir| {
            let file = write(dir, "tokenizer.json", "[]\n");
            File::open(file).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        },
        &|dir| symlink("config.json", dir.path().join("link")).unwrap(),
    ];
    for change in changes {
        let dir = managed();
        change(&dir);
        assert_eq!(state(&dir), Some((false, digest(&dir))));
    }
    let dir = managed();
    symlink("/etc/passwd", dir.path().join("out")).unwrap();
    assert_eq!(state(&dir), Some((false, None)));
}

#[test]
fn a_touched_file_is_read_once_and_its_time_learnt() {
    let dir = managed();
    let mut with_more = fields(&dir);
    with_more.0.insert("unknown".into(), json!({"kept": true}));
    with_more.write(dir.path()).unwrap();
    File::open(dir.path().join("tokenizer.json"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(state(&dir), Some((true, Some(A.to_owned()))));
    let healed = fields(&dir);
    let entry = healed.index().unwrap().pop().unwrap();
    assert_eq!((entry.path.as_str(), entry.mtime_ns), ("tokenizer.json", 0));
    assert_eq!(healed.0["unknown"], json!({"kept": true}));
}

#[test]
fn stored_exclusions_govern_and_recalculating_keeps_them() {
    let dir = managed();
    let mut own = fields(&dir);
    own.0.insert("exclude_patterns".into(), json!(["*.txt", ".mlxk_workspace.json"]));
    own.write(dir.path()).unwrap();
    write(&dir, "note.txt", "hello\n");
    assert_eq!(state(&dir), Some((true, Some(A.to_owned()))));
    write(&dir, "a.log", "counts now");
    assert!(!state(&dir).unwrap().0);
    let Sentinel(after) = clean::recalculate(dir.path()).unwrap();
    assert_eq!(after["exclude_patterns"], json!(["*.txt", ".mlxk_workspace.json"]));
    assert!(state(&dir).unwrap().0);
}

#[test]
fn a_hash_of_the_first_version_is_shown_but_not_believed_until_it_is_taken_anew() {
    let dir = managed();
    let mut old = fields(&dir);
    for key in ["hash_algorithm", "file_index", "exclude_patterns"] {
        old.0.shift_remove(key);
    }
    old.0.insert("content_hash".into(), json!("0".repeat(64)));
    old.write(dir.path()).unwrap();
    assert_eq!(state(&dir), None);
    assert_eq!(fields(&dir), old, "and stays as it is");
    let Sentinel(after) = clean::recalculate(dir.path()).unwrap();
    assert_eq!((&after["content_hash"], &after["hash_algorithm"]), (&json!(A), &json!("v2")));
    assert_eq!(state(&dir), Some((true, Some(A.to_owned()))));
}

#[test]
fn a_sentinel_that_cannot_be_trusted_tells_nothing() {
    let spoil = |key: &str, value: Value| {
        let dir = managed();
        let mut sentinel = fields(&dir);
        sentinel.0.insert(key.into(), value);
        sentinel.write(dir.path()).unwrap();
        dir
    };
    for path in ["", "/etc/passwd", "../x", "a/../../x", "C:x", "a\\b", "a\0b"] {
        let entry = json!([{"path": path, "size": 1, "mtime_ns": 1, "sha": "sha256:0"}]);
        assert_eq!(state(&spoil("file_index", entry)), None, "{path:?}");
    }
    for (key, value) in [
        ("managed", json!("yes")),
        ("hash_algorithm", json!("v3")),
        ("file_index", json!([{"path": 1}])),
        ("exclude_patterns", json!([1])),
    ] {
        assert_eq!(state(&spoil(key, value)), None, "{key}");
    }
    let dir = workspace();
    assert_eq!(state(&dir), None);
    for text in ["not JSON", "[]"] {
        write(&dir, sentinel::NAME, text);
        assert_eq!(state(&dir), None);
    }
    assert!(clean::recalculate(Path::new(dir.path())).is_err());
}
