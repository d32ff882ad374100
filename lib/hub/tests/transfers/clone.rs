//! Clones: plain files, from the Hub or the cache, whole or not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxk_core::store::cache;
use mlxk_core::verify::{Verdict, verify};
use mlxk_core::workspace::sentinel::Sentinel;
use mlxk_core::workspace::staging::Staging;
use mlxk_core::{Found, Origin, Result, probe};
use mlxk_hub::clone::Plan;
use mlxk_hub::pull::Choice;
use mlxk_hub::{Event, listing};

use crate::env::{Env, LARGE, content, files};

fn clone(env: &Env, target: &Path) -> Result<PathBuf> {
    clone_some(env, target, u64::MAX)
}

/// Clones until so many bytes have moved; then the user has had enough.
fn clone_some(env: &Env, target: &Path, bytes: u64) -> Result<PathBuf> {
    clone_chosen(env, target, bytes, &Choice::default())
}

fn clone_chosen(env: &Env, target: &Path, bytes: u64, choice: &Choice) -> Result<PathBuf> {
    let moved = Arc::new(AtomicU64::new(0));
    let seen = moved.clone();
    let cancelled = move || seen.load(Ordering::Relaxed) >= bytes;
    let told = |event: Event| {
        if let Event::Moved { bytes, .. } = event {
            moved.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    let hub = mlxk_hub::Hub::new(env.remote.clone(), cancelled)?;
    let info = listing::info(&hub, "org/M", "main", &|_| {})?;
    let listing = listing::files(&hub, "org/M", &info.commit, &|_| {})?;
    let plan = Plan::of_listing("org/M", listing, choice, &env.places().hub)?;
    let staging = Staging::persistent(target, &info.commit, &env.places())?;
    plan.fill(&staging, Some(&hub), &|| hub.check(), &told)?;
    plan.publish(staging, "org/M")
}

/// Cloned into a directory beside the cache.
fn target(env: &Env) -> PathBuf {
    env.home
        .path()
        .parent()
        .unwrap()
        .join(format!("mlxk-clone-{}", env.home.path().file_name().unwrap().to_string_lossy()))
}

/// Away at the end, whatever becomes of the test.
struct Away(PathBuf);

impl Drop for Away {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_clone_is_plain_files_and_a_sentinel() {
    let env = Env::with_model();
    env.hub.repo("org/M").file(".mlxk_workspace.json", "{}").file(".hf_cache/x", "y");
    let away = Away(target(&env));
    let made = clone(&env, &away.0).unwrap();
    assert_eq!(fs::read(made.join("model.safetensors")).unwrap(), content(LARGE));
    let names: Vec<_> =
        files(&made).iter().map(|f| f.strip_prefix(&made).unwrap().display().to_string()).collect();
    assert_eq!(
        names,
        [".mlxk_workspace.json", "config.json", "model.safetensors", "sub/tokenizer.json"]
    );
    assert!(files(&made).iter().all(|path| !path.is_symlink()));
    let sentinel = Sentinel::read(&made).unwrap().unwrap();
    assert!(sentinel.is_managed());
    assert_eq!(sentinel.0["source_repo"], "org/M");
    assert_eq!(sentinel.0["source_revision"], *env.hub.repo("org/M").commit());
    assert_eq!(sentinel.0["operation"], "clone");
    assert!(!env.places().hub.exists(), "the cache is left alone");
}

#[test]
fn what_the_cache_has_is_copied() {
    let env = Env::with_model();
    env.pull().unwrap();
    env.hub.forget();
    let away = Away(target(&env));
    let made = clone(&env, &away.0).unwrap();
    assert_eq!(fs::read(made.join("model.safetensors")).unwrap(), content(LARGE));
    assert_eq!(env.hub.served("/resolve/"), 0);
    assert_eq!(env.hub.served("/objects/"), 0);
}

#[test]
fn what_the_cache_has_wrong_comes_from_the_hub() {
    let env = Env::with_model();
    env.pull().unwrap();
    fs::write(env.blob(&content(LARGE)), vec![1; LARGE]).unwrap();
    let away = Away(target(&env));
    let made = clone(&env, &away.0).unwrap();
    assert_eq!(fs::read(made.join("model.safetensors")).unwrap(), content(LARGE));
}

#[test]
fn without_a_network_the_cache_is_enough_or_nothing_is_made() {
    let env = Env::with_model();
    env.pull().unwrap();
    let repo = cache::repo(&env.places().hub, "org/M").unwrap();
    let (revision, path) = repo.current().unwrap().unwrap();
    let origin = Origin::Cache { repo: repo.path };
    let found = Found { name: "org/M".into(), path, revision: Some(revision), origin };
    let plan = Plan::of_cached(&found, &Choice::default(), &env.places().hub).unwrap();
    let away = Away(target(&env));
    let fill = || {
        let staging = Staging::persistent(&away.0, "org/M", &env.places())?;
        plan.fill(&staging, None, &|| Ok(()), &|_| {})?;
        plan.publish(staging, "org/M")
    };
    fs::write(env.blob(&content(LARGE)), vec![1; LARGE]).unwrap();
    let error = fill().unwrap_err();
    assert_eq!(error.subject, "org/M: model.safetensors");
    assert!(!away.0.exists());
    fs::write(env.blob(&content(LARGE)), content(LARGE)).unwrap();
    assert_eq!(fs::read(fill().unwrap().join("model.safetensors")).unwrap(), content(LARGE));
}

#[test]
fn a_clone_that_was_cut_short_is_gone_on_with() {
    let env = Env::with_model();
    let away = Away(target(&env));
    assert_eq!(clone_some(&env, &away.0, 3_000_000).unwrap_err().message, "interrupted");
    assert!(!away.0.exists());
    env.hub.forget();
    let made = clone(&env, &away.0).unwrap();
    assert!(env.hub.served("/objects/") < LARGE as u64 - 2_900_000);
    assert_eq!(fs::read(made.join("model.safetensors")).unwrap(), content(LARGE));
    assert!(left(&away).is_empty());
}

/// What runs that were cut short have left beside the target.
fn left(away: &Away) -> Vec<PathBuf> {
    let name = format!(".{}.", away.0.file_name().unwrap().to_string_lossy());
    let beside = fs::read_dir(away.0.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    beside.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(&name)).collect()
}

#[test]
fn what_is_left_of_another_revision_goes_unless_somebody_is_at_work_on_it() {
    let env = Env::with_model();
    let away = Away(target(&env));
    clone_some(&env, &away.0, 3_000_000).unwrap_err();
    let old = left(&away);
    env.hub.repo("org/M").file("config.json", "{\"moved\": 1}");
    let lock = fs::File::open(old[0].join(".mlxk/lock")).unwrap();
    lock.lock().unwrap();
    clone_some(&env, &away.0, 3_000_000).unwrap_err();
    assert_eq!(left(&away).len(), 2);
    lock.unlock().unwrap();
    clone_some(&env, &away.0, 3_000_000).unwrap_err();
    assert_eq!((left(&away).len(), old[0].exists()), (1, false));
    clone(&env, &away.0).unwrap();
    assert!(left(&away).is_empty());
}

#[test]
fn patterns_choose_what_is_cloned() {
    let env = Env::with_model();
    let away = Away(target(&env));
    let choice = |include: &str| Choice { include: vec![include.into()], exclude: vec![] };
    let error = clone_chosen(&env, &away.0, u64::MAX, &choice("*.bin")).unwrap_err();
    assert_eq!(error.message, "no file of it is chosen");
    let made = clone_chosen(&env, &away.0, u64::MAX, &choice("*.json")).unwrap();
    assert_eq!(files(&made).len(), 3, "two files and the sentinel");
    assert_eq!(env.hub.served("/objects/"), 0);
}

#[test]
fn a_copy_out_of_the_cache_ends_when_the_user_has_had_enough() {
    let env = Env::with_model();
    env.pull().unwrap();
    let away = Away(target(&env));
    assert_eq!(clone_some(&env, &away.0, 1_000_000).unwrap_err().message, "interrupted");
    let left = left(&away);
    let copy = left[0].join(".mlxk/copy");
    let free = mlxk_core::store::copy::is_free(&env.blob(&content(LARGE)), &left[0]);
    let size = fs::metadata(&copy).unwrap().len();
    assert!(free || size < 2_000_000, "{size}: it was copied to its end first");
    fs::remove_dir_all(&left[0]).unwrap();
}

#[test]
fn every_byte_of_a_clone_can_be_verified() {
    let env = Env::with_model();
    env.hub.repo("org/M").file("model.safetensors", weights());
    let away = Away(target(&env));
    let made = clone(&env, &away.0).unwrap();
    let found =
        Found { name: "m".into(), path: made.clone(), revision: None, origin: Origin::Workspace };
    let verify = || verify(&probe::read(&found).unwrap(), &|_| {});
    assert_eq!(verify(), Verdict::default());
    let mut bytes = weights();
    *bytes.last_mut().unwrap() = 9;
    fs::write(made.join("model.safetensors"), bytes).unwrap();
    let bad: Vec<_> = verify().bad.into_iter().map(|bad| bad.path).collect();
    assert_eq!(bad, ["model.safetensors"]);
}

fn weights() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[1; 4]].concat()
}

#[test]
fn a_disk_without_room_is_refused_before_the_first_byte() {
    let env = Env::with_model();
    env.hub.repo("org/M").claim_size("model.safetensors", 1 << 60);
    let away = Away(target(&env));
    let error = clone(&env, &away.0).unwrap_err();
    assert!(error.message.contains("the disk has no room"), "{error}");
    assert_eq!(env.hub.served("/objects/") + env.hub.served("/resolve-cache/"), 0);
    left(&away).iter().for_each(|left| fs::remove_dir_all(left).unwrap());
}
