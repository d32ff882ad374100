//! Caches that hold special files, cannot be read, or change while they are listed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use crate::env::Env;
use crate::model::{Model, in_cache, inspect, workspace};
use mlxk_core::store::remove::Request;
use mlxk_core::store::{Found, Places, Revisions, prune, remove};
use mlxk_core::workspace::clean;
use mlxk_core::{Kind, list};

fn places(env: &Env) -> Places {
    Places { root: env.root(), hub: env.hub(), workspaces: Some(env.home()) }
}

fn listed(env: &Env) -> Vec<Found> {
    list::all(&places(env), Revisions::Current).models
}

fn pipe(path: PathBuf) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).unwrap();
    }
    let _ = fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
}

/// A directory that nobody can read, not even root: a link to itself.
fn unreadable(path: &Path) {
    fs::remove_dir_all(path).unwrap();
    symlink(path, path).unwrap();
}

#[test]
fn special_files_are_never_opened() {
    let env = Env::new();
    let snapshot = Model::new().cached(&env, "org/model");
    let found = in_cache("org/model", &snapshot);
    for name in ["refs/main", "trees/x.json", "blobs/x.incomplete"] {
        pipe(snapshot.repo.join(name));
    }
    pipe(env.hub().join(".locks/models--org--model/x.lock"));
    assert_eq!(listed(&env), std::slice::from_ref(&found));
    prune::plan(&places(&env), SystemTime::now()).unwrap();
    let request = Request {
        found: &found,
        places: &places(&env),
        revision_only: false,
        force: false,
        only_tests: true,
    };
    pipe(env.hub().join("blobs/.huggingface-shared-blobs"));
    remove::plan(&request).unwrap();

    let made = Model::new().at(&env, "w");
    pipe(made.path.join(".mlxk_workspace.json"));
    assert!(clean::check(&made.path).is_none());
    let reason = inspect(&made).health.reason;
    assert_eq!(reason, ".mlxk_workspace.json is neither a file nor a directory");
}

#[test]
fn endless_files_are_bounded() {
    let env = Env::new();
    let snapshot = Model::new().cached(&env, "org/model");
    fs::create_dir_all(snapshot.repo.join("refs")).unwrap();
    symlink("/dev/zero", snapshot.repo.join("refs/main")).unwrap();
    assert_eq!(listed(&env), [in_cache("org/model", &snapshot)]);
    let made = Model::new().at(&env, "w");
    symlink("/dev/zero", made.path.join(".mlxk_workspace.json")).unwrap();
    assert!(clean::check(&made.path).is_none());
    let long = fs::File::create(snapshot.repo.join("refs/long")).unwrap();
    long.set_len(1 << 40).unwrap();
    let e = prune::plan(&places(&env), SystemTime::now()).unwrap().unreadable;
    assert!(e[0].to_string().starts_with("org/model: it is over the limit"), "{e:?}");
}

#[test]
fn a_model_that_cannot_be_read_is_unhealthy_and_hides_no_other() {
    let env = Env::new();
    let bad = Model::new().cached(&env, "org/bad");
    let other = Model::new().cached(&env, "org/other").reference("main");
    fs::write(other.repo.join("blobs/orphan"), "12345").unwrap();
    unreadable(bad.path.parent().unwrap());
    let all = listed(&env);
    let health: Vec<_> = all.iter().map(|found| inspect(found).health).collect();
    assert!(health[0].reason.starts_with("cannot be read: "), "{health:?}");
    assert_eq!((health.len(), health[1].healthy), (2, true));
    let pruning = prune::plan(&places(&env), SystemTime::now()).unwrap();
    assert_eq!(pruning.deletion.bytes, 5, "of the other model");
    assert_eq!(pruning.unreadable.len(), 1);
    assert_eq!(pruning.unreadable[0].subject, "org/bad");
}

#[test]
fn a_model_that_is_gone_is_told_from_one_that_is_broken() {
    let env = Env::new();
    let found = Model::new().at(&env, "w");
    fs::remove_dir_all(&found.path).unwrap();
    let e = mlxk_core::inspect(&found).unwrap_err();
    assert!(e.is_absent() && e.kind == Kind::ModelNotFound, "{e}");
    fs::create_dir(&found.path).unwrap();
    assert_eq!(inspect(&workspace(found.path)).health.reason, "config.json missing");
}

#[test]
fn a_model_vanishes_at_once() {
    let env = Env::new();
    let names: Vec<String> = (0..60).map(|n| format!("org/m{n}")).collect();
    for name in &names {
        Model::new().cached(&env, name).reference("main");
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let lister = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for found in listed(&env) {
                    match mlxk_core::inspect(&found) {
                        Ok(model) => assert!(model.health.healthy, "{}", model.health.reason),
                        Err(e) => assert!(e.is_absent(), "{e}"),
                    }
                }
            }
        });
        for found in listed(&env) {
            let places = places(&env);
            let (revision_only, force, only_tests) = (false, false, true);
            let request =
                Request { found: &found, places: &places, revision_only, force, only_tests };
            let plan = remove::plan(&request).unwrap();
            remove::execute(&request, &plan).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        lister.join().unwrap();
    });
    assert_eq!(listed(&env).len(), 0);
}

#[test]
fn of_two_removals_one_reports_it() {
    let env = Env::new();
    for round in 0..20 {
        let snapshot = Model::new().cached(&env, "org/model");
        let found = in_cache("org/model", &snapshot);
        let removal = || {
            let places = places(&env);
            let (revision_only, force, only_tests) = (round % 2 == 0, false, true);
            let request =
                Request { found: &found, places: &places, revision_only, force, only_tests };
            remove::plan(&request).and_then(|plan| remove::execute(&request, &plan))
        };
        let done = thread::scope(|scope| {
            let [a, b] = [scope.spawn(removal), scope.spawn(removal)];
            [a.join().unwrap(), b.join().unwrap()]
        });
        let lost: Vec<_> = done.iter().filter_map(|done| done.as_ref().err()).collect();
        assert_eq!(lost.len(), 1, "{done:?}");
        assert!(matches!(lost[0].kind, Kind::ModelNotFound | Kind::DeletionFailed), "{lost:?}");
        assert!(!snapshot.repo.exists());
    }
}

#[test]
fn the_remains_of_a_killed_removal_are_pruned() {
    let env = Env::new();
    let snapshot = Model::new().cached(&env, "org/model");
    let aside = env.hub().join(".mlxk.abc.tmp");
    fs::rename(&snapshot.repo, &aside).unwrap();
    let later = SystemTime::now() + std::time::Duration::from_secs(9);
    let plan = prune::plan(&places(&env), later).unwrap().deletion;
    assert_eq!(plan.snapshots, std::slice::from_ref(&aside));
    prune::execute(&places(&env), later, &plan).unwrap();
    assert!(!aside.exists());
}
