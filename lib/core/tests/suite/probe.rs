//! The probe on links, odd names, and arbitrary content of files.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::env::Env;
use crate::model::{Model, in_cache, inspect, shard, workspace};
use mlxk_core::{Found, Health, Inspected, Origin};
use mlxk_core::{describe, probe};

#[test]
fn links_of_a_cached_model_may_lead_to_its_blobs_and_the_shared_store() {
    let env = Env::new();
    let snapshot = Model::sharded().cached(&env, "org/model");
    let Inspected { facts, health, .. } = inspect(&in_cache("org/model", &snapshot));
    assert_eq!(health.reason, "Multi-file model complete");
    assert_eq!(
        facts.size(),
        Model::sharded().0.values().map(|file| file.len() as u64).sum::<u64>()
    );
    assert_eq!(facts.weights().len(), 2);

    fs::remove_file(env.hub().join("blobs/.huggingface-shared-blobs")).unwrap();
    let health = inspect(&in_cache("org/model", &snapshot)).health;
    assert!(health.reason.contains("outside the cache"), "an unmarked store: {}", health.reason);
}

#[test]
fn a_cache_behind_a_link_is_as_good() {
    let env = Env::new();
    Model::sharded().cached(&env, "org/model");
    let other = env.root().join("elsewhere");
    symlink(env.hub(), &other).unwrap();
    let repo = other.join("models--org--model");
    let path = repo.join("snapshots").join("a".repeat(40));
    let found = Found {
        name: "org/model".into(),
        path,
        revision: Some("a".repeat(40)),
        origin: Origin::Cache { repo },
    };
    assert!(inspect(&found).health.healthy);
}

#[test]
fn links_that_leave_are_not_followed() {
    let env = Env::new();
    let secret = env.root().join("secret.json");
    fs::write(&secret, r#"{"model_type": "llama", "secret": 1}"#).unwrap();
    let unhealthy = |found: &Found, expected: &str| {
        let Inspected { facts, health: Health { reason, .. }, .. } = inspect(found);
        assert!(facts.config.get("secret").is_none(), "the file behind the link is not read");
        assert!(reason.contains(expected), "{reason}\n  not {expected}");
    };
    let snapshot = Model::new().without("config.json").cached(&env, "org/model");
    symlink(&secret, snapshot.path.join("config.json")).unwrap();
    unhealthy(&in_cache("org/model", &snapshot), "config.json links to");
    unhealthy(&in_cache("org/model", &snapshot), "secret.json, outside the cache");

    let snapshot = Model::new().cached(&env, "org/hop");
    let blob = snapshot.repo.join("blobs/evil");
    symlink("/etc/passwd", &blob).unwrap();
    symlink("../../blobs/evil", snapshot.path.join("vocab.txt")).unwrap();
    unhealthy(
        &in_cache("org/hop", &snapshot),
        "vocab.txt links to ../../blobs/evil, outside the cache",
    );

    let snapshot = Model::new().cached(&env, "org/dangling");
    symlink("../../blobs/gone", snapshot.path.join("vocab.txt")).unwrap();
    unhealthy(
        &in_cache("org/dangling", &snapshot),
        "vocab.txt links to ../../blobs/gone, which is not there",
    );

    let found = Model::new().at(&env, "workspace");
    symlink("tokenizer.json", found.path.join("inside.json")).unwrap();
    symlink(".", found.path.join("loop")).unwrap();
    assert!(inspect(&found).health.healthy);
    symlink("../../secret.json", found.path.join("vocab.txt")).unwrap();
    unhealthy(&found, "vocab.txt links to ../../secret.json, outside the workspace");
}

#[test]
fn directories_that_are_links_do_not_deceive() {
    let env = Env::new();
    let elsewhere = env.root().join("elsewhere");
    for dir in ["blobs", "snapshots/a", "blobs/ab"] {
        fs::create_dir_all(elsewhere.join(dir)).unwrap();
    }
    let reason = |snapshot| inspect(&in_cache("org/model", snapshot)).health.reason;

    // `../../blobs/x` looks like a blob of the model, but the snapshot is in another directory.
    let snapshot = Model::new().cached(&env, "org/moved");
    fs::write(snapshot.repo.join("blobs/x"), "own").unwrap();
    fs::write(elsewhere.join("blobs/x"), "foreign").unwrap();
    symlink("../../blobs/x", elsewhere.join("snapshots/a/vocab.txt")).unwrap();
    fs::remove_dir_all(&snapshot.path).unwrap();
    symlink(elsewhere.join("snapshots/a"), &snapshot.path).unwrap();
    let expected = "vocab.txt links to ../../blobs/x, outside the cache";
    assert_eq!(reason(&snapshot), expected);

    // A directory of the shared store that is a link.
    let snapshot = Model::new().cached(&env, "org/prefix");
    fs::write(elsewhere.join("blobs/ab/payload"), "foreign").unwrap();
    symlink(elsewhere.join("blobs/ab"), env.hub().join("blobs/zz")).unwrap();
    symlink("../../blobs/zz/payload", snapshot.repo.join("blobs/y")).unwrap();
    symlink("../../blobs/y", snapshot.path.join("vocab.txt")).unwrap();
    let expected = "vocab.txt links to ../../blobs/y, outside the cache";
    assert_eq!(reason(&snapshot), expected);
}

#[test]
fn names_that_are_not_utf_8_and_pipes_do_no_harm() {
    let env = Env::new();
    let found = Model::new().at(&env, "model");
    let odd = std::ffi::OsStr::from_bytes(b"odd-\xff.safetensors");
    fs::write(found.path.join(odd), shard(&["z"])).unwrap();
    assert!(inspect(&found).health.healthy);
    fs::rename(found.path.join("model.safetensors"), found.path.join("x.txt")).unwrap();
    fs::write(found.path.join(odd), "x").unwrap();
    let reason = inspect(&found).health.reason;
    assert!(reason.starts_with("odd-\u{fffd}.safetensors: no safetensors header"), "{reason}");
    fs::remove_file(found.path.join(odd)).unwrap();
    let pipe = found.path.join("config.json");
    fs::remove_file(&pipe).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(inspect(&found).health.reason, "config.json is neither a file nor a directory");
}

#[test]
fn depth_is_bounded() {
    let env = Env::new();
    let deep = format!("{}x.txt", "d/".repeat(20));
    let found = Model::new().file(&deep, "x").at(&env, "model");
    let reason = inspect(&found).health.reason;
    assert!(reason.ends_with("lies more than 12 directories deep"), "{reason}");
}

#[test]
fn no_configuration_breaks_the_reader() {
    let env = Env::new();
    let found = Model::new().at(&env, "model");
    let files = [
        "config.json",
        "tokenizer_config.json",
        "README.md",
        "model.safetensors.index.json",
        "model.safetensors",
    ];
    let originals = files.map(|file| fs::read(found.path.join(file)).unwrap_or_default());
    arbtest::arbtest(|u| {
        let at = u.choose_index(files.len())?;
        let mut content = originals[at].clone();
        for _ in 0..u.int_in_range(1..=8)? {
            let place = u.int_in_range(0..=content.len())?;
            content.splice(place..place, u.arbitrary::<[u8; 2]>()?);
        }
        fs::write(found.path.join(files[at]), content).unwrap();
        let model = inspect(&found);
        assert!(model.health.healthy || model.plan.runnable.is_err());
        describe::model(&model, None).to_string();
        Ok(())
    })
    .budget_ms(300);
}

#[test]
fn a_directory_that_is_not_there_is_an_error_that_names_it() {
    let error = probe::read(&workspace(Path::new("/nowhere/at/all").into())).unwrap_err();
    assert_eq!(error.subject, "/nowhere/at/all");
}
