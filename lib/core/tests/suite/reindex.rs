//! Rebuilding an index: copied files, refused sources and targets, no files after a failure.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::env::Env;
use mlxk_core::Progress;
use mlxk_core::store::Places;
use mlxk_core::workspace::clean;
use mlxk_core::workspace::reindex::repair_index;
use mlxk_core::workspace::sentinel::{self, Made, Sentinel};
use mlxk_core::{Error, Record};
use serde_json::{Value, json};

/// A safetensors file with one tensor `name` of `count` floats.
fn shard(name: &str, count: usize) -> Vec<u8> {
    let end = 4 * count;
    let header = json!({name: {"dtype": "F32", "shape": [count], "data_offsets": [0, end]}});
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![7; end]].concat()
}

/// A workspace of two shards whose index is wrong, with a directory, links and a sentinel.
fn broken(env: &Env) -> PathBuf {
    let index = br#"{"metadata": {}, "weight_map": {"a": "gone.safetensors"}}"#;
    let path = env.workspace(
        "broken",
        &[
            ("model-00001-of-00002.safetensors", &shard("a", 2)),
            ("model-00002-of-00002.safetensors", &shard("b", 3)),
            ("model.safetensors.index.json", index),
            ("tokenizer.json", b"{}"),
            ("tokenizer_config.json", b"{}"),
            ("._model-00001-of-00002.safetensors", b"\0\x05\x16\x07"),
            ("sub/notes.txt", b"hello"),
            (".hf_cache/hub/x", b"not ours"),
        ],
    );
    symlink("sub/notes.txt", path.join("link")).unwrap();
    let made =
        Made { operation: "clone", source: "org/model", revision: Some("abc"), ..Made::default() };
    sentinel::manage(&path, &made).unwrap();
    path
}

fn places(env: &Env) -> Places {
    let root = env.root().join("hf");
    fs::create_dir_all(root.join("hub")).unwrap();
    Places { hub: root.join("hub"), root, workspaces: Some(env.home()) }
}

fn repair(env: &Env, source: &Path, target: &Path) -> Result<Record, Error> {
    repair_index(source, target, true, &places(env), |_| Ok(()))
}

/// The names of the entries of the workspace home.
fn names(env: &Env) -> Vec<String> {
    let entries = fs::read_dir(env.home()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_copy_has_a_right_index_and_everything_else() {
    let env = Env::new();
    let source = broken(&env);
    let record = repair(&env, "broken".as_ref(), "fixed".as_ref()).unwrap();
    let target = env.home().join("fixed");
    assert_eq!(record.str("target"), target.to_str());
    assert_eq!(record.str("mode"), Some("repair-index"));
    assert_eq!(record.str("health_status"), Some("healthy"));
    assert_eq!(record.str("message"), Some("The index of 2 files was made anew"));
    let index = fs::read_to_string(target.join("model.safetensors.index.json")).unwrap();
    assert!(index.starts_with("{\n  \"metadata\": {\n    \"total_size\": 20\n"), "{index}");
    assert!(index.ends_with("}\n"));
    let index: Value = serde_json::from_str(&index).unwrap();
    let map = json!({
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
    });
    assert_eq!(index["weight_map"], map);
    assert_eq!(fs::read(target.join("sub/notes.txt")).unwrap(), b"hello");
    assert_eq!(fs::read_link(target.join("link")).unwrap(), Path::new("sub/notes.txt"));
    assert!(!target.join(".hf_cache").exists());
    let Sentinel(fields) = Sentinel::read(&target).unwrap().unwrap();
    let said = ["operation", "mode", "source_repo", "source_revision"].map(|key| &fields[key]);
    assert_eq!(said, ["convert", "repair-index", "org/model", "abc"]);
    assert_eq!(record.get("content_hash"), fields.get("content_hash"));
    assert!(clean::check(&target).unwrap().clean);
    assert!(clean::check(&source).unwrap().clean, "the source is as it was");
}

#[test]
fn one_file_has_no_index() {
    let env = Env::new();
    let index: &[u8] = br#"{"weight_map": {"w": "gone.safetensors"}}"#;
    let files: &[(&str, &[u8])] = &[
        ("model.safetensors", &shard("w", 1)),
        ("model.safetensors.index.json", index),
        ("tokenizer.json", b"{}"),
        ("tokenizer_config.json", b"{}"),
    ];
    let source = env.workspace("one", files);
    let record = repair(&env, &source, &env.home().join("two")).unwrap();
    assert_eq!(record.str("message"), Some("A model in one file needs no index"));
    assert!(!env.home().join("two/model.safetensors.index.json").exists());
    let Sentinel(fields) = Sentinel::read(&env.home().join("two")).unwrap().unwrap();
    assert_eq!(fields["source_repo"], json!(source.to_str()));
}

#[test]
fn a_failure_names_the_file_and_leaves_nothing() {
    type Spoil = fn(&Path);
    let cases: [(Spoil, &str, &str); 6] = [
        (|dir| fs::write(dir.join("z.safetensors"), shard("a", 1)).unwrap(), "z.safetensors", "a"),
        (|dir| fs::write(dir.join("z.safetensors"), "short").unwrap(), "z.safetensors", "header"),
        (|dir| symlink("/etc/hostname", dir.join("out")).unwrap(), "out", "leads out"),
        (|dir| symlink(dir.join("sub"), dir.join("abs")).unwrap(), "abs", "absolute"),
        (|dir| symlink("nothing", dir.join("dead")).unwrap(), "dead", "to nothing"),
        (|dir| fs::remove_file(dir.join("tokenizer.json")).unwrap(), "fixed", "okenizer"),
    ];
    for (spoil, subject, reason) in cases {
        let env = Env::new();
        let source = broken(&env);
        spoil(&source);
        let e = repair(&env, &source, "fixed".as_ref()).unwrap_err();
        assert!(e.subject.ends_with(subject) && e.message.contains(reason), "{e}");
        assert_eq!(names(&env), ["broken"], "{e}");
    }
    let env = Env::new();
    let source = broken(&env);
    fs::remove_file(source.join("tokenizer.json")).unwrap();
    let skipped =
        repair_index(&source, "fixed".as_ref(), false, &places(&env), |_| Ok(())).unwrap();
    assert_eq!(skipped.get("health_check"), Some(&json!(false)));
    let stop = |_: Progress| Err(Error::new(mlxk_core::Kind::Execution, "", "enough"));
    assert!(repair_index(&source, "x".as_ref(), false, &places(&env), stop).is_err());
    assert_eq!(names(&env), ["broken", "fixed"]);
}

#[test]
fn the_cache_is_neither_source_nor_target_by_whatever_way() {
    let env = Env::new();
    let source = broken(&env);
    let places = places(&env);
    let cached = places.root.join("elsewhere/model");
    fs::create_dir_all(&cached).unwrap();
    fs::write(cached.join("config.json"), "{}").unwrap();
    symlink(&cached, env.home().join("linked")).unwrap();
    symlink(&places.root, env.home().join("cache")).unwrap();
    for from in [cached.as_path(), "linked".as_ref()] {
        let e = repair(&env, from, "x".as_ref()).unwrap_err();
        assert!(e.message.contains("inside the Hugging Face cache"), "{e}");
        assert!(e.hint.unwrap().contains("mlxk-clone"));
    }
    for to in [places.hub.join("x"), env.home().join("cache/x")] {
        let e = repair(&env, &source, &to).unwrap_err();
        assert!(e.message.contains("inside the Hugging Face cache"), "{e}");
    }
    // The cache is recognized through a link to it too.
    let through = Places { root: env.home().join("cache"), ..places };
    let e = repair_index(&cached, "x".as_ref(), true, &through, |_| Ok(())).unwrap_err();
    assert!(e.message.contains("inside the Hugging Face cache"), "{e}");
}

#[test]
fn what_is_no_workspace_or_taken_is_refused() {
    let env = Env::new();
    let source = broken(&env);
    let refused = |from: &Path, to: &Path| repair(&env, from, to).unwrap_err().message;
    assert!(refused("absent".as_ref(), "x".as_ref()).contains("No such file"));
    assert!(refused(&source.join("sub"), "x".as_ref()).contains("no config.json"));
    assert!(refused(&source, &source).contains("not empty"));
    assert!(refused(&source, &source.join("inner")).contains("inside the source"));
    assert_eq!(names(&env), ["broken"]);
}

#[test]
fn a_file_that_changes_while_it_is_copied_ends_it() {
    let env = Env::new();
    let source = broken(&env);
    let later = source.join("model-00002-of-00002.safetensors");
    let accident = |progress: Progress| {
        if matches!(progress, Progress::Due(_)) {
            fs::write(&later, shard("b", 4)).unwrap();
        }
        Ok(())
    };
    let error = repair_index(&source, "fixed".as_ref(), true, &places(&env), accident).unwrap_err();
    assert!(error.to_string().ends_with("00002.safetensors: changed while it was read"), "{error}");
    assert_eq!(names(&env), ["broken"]);
}

#[test]
fn a_disk_without_room_is_refused_before_anything_is_copied() {
    let env = Env::new();
    let source = broken(&env);
    let sparse = fs::File::create(source.join("huge.bin")).unwrap();
    sparse.set_len(4 << 40).unwrap();
    let copied = |_: Progress| -> Result<(), Error> { panic!("something was copied") };
    let error = repair_index(&source, "fixed".as_ref(), true, &places(&env), copied).unwrap_err();
    assert!(error.message.contains("the disk has no room: 4398"), "{error}");
    assert_eq!(names(&env), ["broken"]);
}
