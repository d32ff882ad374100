//! Clones: plain files from the Hub or the cache, complete or absent.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxk_core::Progress;
use mlxk_core::store::cache;
use mlxk_core::verify::{Verdict, verify};
use mlxk_core::workspace::sentinel::Sentinel;
use mlxk_core::workspace::staging::Staging;
use mlxk_core::{Found, Origin, Result, probe};
use mlxk_hub::clone::ClonePlan;
use mlxk_hub::listing;
use mlxk_hub::pull::FileFilter;

use crate::env::{Env, LARGE, content, files};

fn clone(env: &Env, target: &Path) -> Result<PathBuf> {
    clone_until(env, target, u64::MAX)
}

/// Clones with a user who cancels once `bytes` bytes have arrived.
fn clone_until(env: &Env, target: &Path, bytes: u64) -> Result<PathBuf> {
    clone_filtered(env, target, bytes, &FileFilter::default())
}

fn clone_filtered(env: &Env, target: &Path, bytes: u64, filter: &FileFilter) -> Result<PathBuf> {
    let moved = Arc::new(AtomicU64::new(0));
    let seen = moved.clone();
    let cancelled = move || seen.load(Ordering::Relaxed) >= bytes;
    let progress = |event: Progress| {
        if let Progress::Moved { bytes, .. } = event {
            moved.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    let hub = mlxk_hub::Hub::new(env.remote.clone(), cancelled)?;
    let info = listing::info(&hub, "org/M", "main", &|_| {})?;
    let listing = listing::files(&hub, "org/M", &info.commit, &|_| {})?;
    let plan = ClonePlan::of_listing("org/M", listing, filter, &env.places().hub)?;
    let staging = Staging::persistent(target, &info.commit, &env.places())?;
    plan.fill(&staging, Some(&hub), &|| hub.check(), &progress)?;
    plan.publish(staging, "org/M")
}

/// Target directory of the clone, beside the cache.
fn target(env: &Env) -> PathBuf {
    env.home
        .path()
        .parent()
        .unwrap()
        .join(format!("mlxk-clone-{}", env.home.path().file_name().unwrap().to_string_lossy()))
}

/// Directory that is removed when the test ends, even if it fails.
struct TempTarget(PathBuf);

impl Drop for TempTarget {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_clone_is_plain_files_and_a_sentinel() {
    let env = Env::with_model();
    env.hub.repo("org/M").file(".mlxk_workspace.json", "{}").file(".hf_cache/x", "y");
    let target_dir = TempTarget(target(&env));
    let made = clone(&env, &target_dir.0).unwrap();
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
fn cached_files_are_copied() {
    let env = Env::with_model();
    env.pull().unwrap();
    env.hub.forget();
    let target_dir = TempTarget(target(&env));
    let made = clone(&env, &target_dir.0).unwrap();
    assert_eq!(fs::read(made.join("model.safetensors")).unwrap(), content(LARGE));
    assert_eq!(env.hub.served("/resolve/"), 0);
    assert_eq!(env.hub.served("/objects/"), 0);
}

#[test]
fn damaged_cached_files_come_from_the_hub() {
    let env = Env::with_model();
    env.pull().unwrap();
    fs::write(env.blob(&content(LARGE)), vec![1; LARGE]).unwrap();
    let target_dir = TempTarget(target(&env));
    let made = clone(&env, &target_dir.0).unwrap();
    assert_eq!(fs::read(made.join("model.safetensors")).unwrap(), content(LARGE));
}

#[test]
fn offline_clones_come_from_the_cache_or_fail_whole() {
    let env = Env::with_model();
    env.pull().unwrap();
    let repo = cache::repo(&env.places().hub, "org/M").unwrap();
    let (revision, path) = repo.current().unwrap().unwrap();
    let origin = Origin::Cache { repo: repo.path };
    let found = Found { name: "org/M".into(), path, revision: Some(revision), origin };
    let plan = ClonePlan::of_cached(&found, &FileFilter::default(), &env.places().hub).unwrap();
    let target_dir = TempTarget(target(&env));
    let fill = || {
        let staging = Staging::persistent(&target_dir.0, "org/M", &env.places())?;
        plan.fill(&staging, None, &|| Ok(()), &|_| {})?;
        plan.publish(staging, "org/M")
    };
    fs::write(env.blob(&content(LARGE)), vec![1; LARGE]).unwrap();
    let error = fill().unwrap_err();
    assert_eq!(error.subject, "org/M: model.safetensors");
    assert!(!target_dir.0.exists());
    fs::write(env.blob(&content(LARGE)), content(LARGE)).unwrap();
    assert_eq!(fs::read(fill().unwrap().join("model.safetensors")).unwrap(), content(LARGE));
}

#[test]
fn an_interrupted_clone_is_resumed() {
    let env = Env::with_model();
    let target_dir = TempTarget(target(&env));
    assert_eq!(clone_until(&env, &target_dir.0, 3_000_000).unwrap_err().message, "interrupted");
    assert!(!target_dir.0.exists());
    env.hub.forget();
    let made = clone(&env, &target_dir.0).unwrap();
    assert!(env.hub.served("/objects/") < LARGE as u64 - 2_900_000);
    assert_eq!(fs::read(made.join("model.safetensors")).unwrap(), content(LARGE));
    assert!(leftovers(&target_dir).is_empty());
}

/// Staging directories that interrupted runs have left beside the target.
fn leftovers(target_dir: &TempTarget) -> Vec<PathBuf> {
    let name = format!(".{}.", target_dir.0.file_name().unwrap().to_string_lossy());
    let beside = fs::read_dir(target_dir.0.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
    beside.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(&name)).collect()
}

#[test]
fn staging_of_another_revision_is_removed_unless_in_use() {
    let env = Env::with_model();
    let target_dir = TempTarget(target(&env));
    clone_until(&env, &target_dir.0, 3_000_000).unwrap_err();
    let old = leftovers(&target_dir);
    env.hub.repo("org/M").file("config.json", "{\"moved\": 1}");
    let lock = fs::File::open(old[0].join(".mlxk/lock")).unwrap();
    lock.lock().unwrap();
    clone_until(&env, &target_dir.0, 3_000_000).unwrap_err();
    assert_eq!(leftovers(&target_dir).len(), 2);
    lock.unlock().unwrap();
    clone_until(&env, &target_dir.0, 3_000_000).unwrap_err();
    assert_eq!((leftovers(&target_dir).len(), old[0].exists()), (1, false));
    clone(&env, &target_dir.0).unwrap();
    assert!(leftovers(&target_dir).is_empty());
}

#[test]
fn patterns_select_the_files_to_clone() {
    let env = Env::with_model();
    let target_dir = TempTarget(target(&env));
    let filter = |include: &str| FileFilter { include: vec![include.into()], exclude: vec![] };
    let error = clone_filtered(&env, &target_dir.0, u64::MAX, &filter("*.bin")).unwrap_err();
    assert_eq!(error.message, "no file of it is chosen");
    let made = clone_filtered(&env, &target_dir.0, u64::MAX, &filter("*.json")).unwrap();
    assert_eq!(files(&made).len(), 3, "two files and the sentinel");
    assert_eq!(env.hub.served("/objects/"), 0);
}

#[test]
fn a_copy_from_the_cache_can_be_cancelled() {
    let env = Env::with_model();
    env.pull().unwrap();
    let target_dir = TempTarget(target(&env));
    assert_eq!(clone_until(&env, &target_dir.0, 1_000_000).unwrap_err().message, "interrupted");
    let left = leftovers(&target_dir);
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
    let target_dir = TempTarget(target(&env));
    let made = clone(&env, &target_dir.0).unwrap();
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
fn a_full_disk_is_refused_before_the_first_byte() {
    let env = Env::with_model();
    env.hub.repo("org/M").claim_size("model.safetensors", 1 << 60);
    let target_dir = TempTarget(target(&env));
    let error = clone(&env, &target_dir.0).unwrap_err();
    assert!(error.message.contains("the disk has no room"), "{error}");
    assert_eq!(env.hub.served("/objects/") + env.hub.served("/resolve-cache/"), 0);
    leftovers(&target_dir).iter().for_each(|left| fs::remove_dir_all(left).unwrap());
}
