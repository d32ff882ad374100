//! Removal of models and revisions, and pruning: deleted paths, kept paths, and bytes freed.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::env::{Env, Snapshot};
use mlxk_core::resolve::resolve;
use mlxk_core::store::deletion::Deletion;
use mlxk_core::store::remove::Request;
use mlxk_core::store::{Found, Places, prune, remove};
use mlxk_core::{Error, Kind, Spec};

fn places(env: &Env) -> Places {
    Places { root: env.root(), hub: env.hub(), workspaces: Some(env.home()) }
}

fn find(env: &Env, name: &str) -> Found {
    resolve(&Spec::parse(name).unwrap(), &places(env)).unwrap()
}

/// Runs `with` on the request to remove `name`: a revision if the name has an `@`, else the model.
fn removal<T>(env: &Env, name: &str, force: bool, with: impl FnOnce(&Request) -> T) -> T {
    let (found, places) = (find(env, name), places(env));
    let revision_only = name.contains('@');
    with(&Request { found: &found, places: &places, revision_only, force, only_tests: true })
}

/// Removes `name` and checks that the plan agrees with the disk.
fn rm(env: &Env, name: &str) -> Deletion {
    let before = disk(&env.hub());
    let (plan, freed) = removal(env, name, false, |request| {
        let plan = remove::plan(request).unwrap();
        let freed = remove::execute(request, &plan).unwrap();
        (plan, freed)
    });
    honest(env, before, &plan, freed);
    plan
}

fn prune(env: &Env, before: SystemTime) -> Deletion {
    let size = disk(&env.hub());
    let plan = prune::plan(&places(env), before).unwrap().deletion;
    let freed = prune::execute(&places(env), before, &plan).unwrap();
    honest(env, size, &plan, freed);
    plan
}

fn honest(env: &Env, before: u64, plan: &Deletion, freed: u64) {
    assert_eq!(before - disk(&env.hub()), plan.bytes);
    assert_eq!(freed, plan.bytes);
    assert!(plan.paths().all(|path| fs::symlink_metadata(path).is_err()));
    assert_eq!(dangling(&env.hub()), [""; 0]);
}

/// The bytes of all files below `path`, each inode once, without manifests and locks of the shared store.
fn disk(path: &Path) -> u64 {
    fn add(path: &Path, seen: &mut std::collections::BTreeMap<u64, u64>) {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::symlink_metadata(path).unwrap();
        let aside = path.extension().is_some_and(|e| e == "refs" || e == "lock");
        if metadata.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| add(&entry.unwrap().path(), seen));
        } else if metadata.is_file() && !aside {
            seen.insert(metadata.ino(), metadata.len());
        }
    }
    let mut seen = Default::default();
    add(path, &mut seen);
    seen.values().sum()
}

/// The broken links below `path`.
fn dangling(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            found.extend((!path.exists()).then(|| path.display().to_string()));
        } else if path.is_dir() {
            found.extend(dangling(&path));
        }
    }
    found
}

fn an_hour_ago() -> SystemTime {
    SystemTime::now() - Duration::from_secs(3600)
}

/// Makes a file or directory two hours old.
fn age(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
}

fn blobs(snapshot: &Snapshot) -> usize {
    fs::read_dir(snapshot.repo.join("blobs")).unwrap().count()
}

fn payload(env: &Env, content: &str) -> PathBuf {
    let hash = crate::env::sha256(content.as_bytes());
    env.hub().join("blobs").join(&hash[..2]).join(hash)
}

/// Two revisions of one model that share the content `same`.
fn two_revisions(env: &Env) -> (Snapshot, Snapshot) {
    let a = env.snapshot("org/m", 'a').file("config.json", "same").file("sub/w", "only a");
    let b = env.snapshot("org/m", 'b').file("config.json", "same").file("w", "of b alone");
    (a.reference("v1").reference("refs/pr/1"), b.reference("main"))
}

#[test]
fn a_model_goes_with_its_locks() {
    let env = Env::new();
    let (a, _) = two_revisions(&env);
    let lock = a.lock("abc");
    let other = env.snapshot("org/m2", 'a').file("config.json", "same");
    let plan = rm(&env, "org/m");
    assert_eq!(
        (plan.locks.as_slice(), lock.parent().unwrap().exists()),
        (&[lock.clone()][..], false)
    );
    assert!(!a.repo.exists());
    assert_eq!(fs::read(other.path.join("config.json")).unwrap(), b"same");
}

#[test]
fn a_revision_goes_with_its_refs_and_the_blobs_that_only_it_uses() {
    let env = Env::new();
    let (a, b) = two_revisions(&env);
    fs::create_dir_all(a.repo.join("trees")).unwrap();
    fs::write(a.repo.join("trees").join(format!("{}.json", a.revision)), "{}").unwrap();
    let plan = rm(&env, "org/m@aaa");
    assert_eq!(plan.bytes, ("only a".len() + 2 * a.revision.len() + "{}".len()) as u64);
    assert_eq!((a.path.exists(), blobs(&b)), (false, 2));
    assert_eq!(fs::read(b.path.join("config.json")).unwrap(), b"same");
    assert!(b.repo.join("refs/main").exists() && !b.repo.join("refs/v1").exists());
    rm(&env, "org/m@main");
    assert!(!b.repo.exists());
}

#[test]
fn a_shared_payload_goes_with_its_last_user() {
    let env = Env::new();
    env.snapshot("org/x", 'a').shared("w", "payload").file("config.json", "x");
    env.snapshot("org/y", 'a').shared("w", "payload").reference("main");
    env.snapshot("org/y", 'b').shared("other", "y only");
    assert_eq!(rm(&env, "org/x").bytes, 1);
    let payload = payload(&env, "payload");
    let manifest = fs::read_to_string(payload.with_extension("refs")).unwrap();
    assert_eq!((manifest.lines().count(), manifest.contains("models--org--y")), (1, true));
    assert_eq!(rm(&env, "org/y@bbb").bytes, 6);
    assert!(payload.exists());
    assert_eq!(rm(&env, "org/y").bytes, 7 + 40);
    assert!(!payload.exists() && !payload.with_extension("refs").exists());
}

#[test]
fn a_payload_without_a_manifest_is_never_deleted() {
    let env = Env::new();
    env.snapshot("org/x", 'a').shared("w", "payload");
    fs::remove_file(payload(&env, "payload").with_extension("refs")).unwrap();
    assert_eq!(rm(&env, "org/x").bytes, 0);
    prune(&env, SystemTime::now());
    assert!(payload(&env, "payload").exists());
}

#[test]
fn a_hard_link_counts_when_its_last_name_goes() {
    let env = Env::new();
    let m = env.snapshot("org/m", 'a').file("w", "linked elsewhere");
    let blob = fs::read_link(m.path.join("w")).unwrap();
    fs::hard_link(m.path.join("w").parent().unwrap().join(blob), env.root().join("copy")).unwrap();
    let plan = removal(&env, "org/m", false, |request| remove::plan(request).unwrap());
    assert_eq!(plan.bytes, 0);
}

#[test]
fn workspaces_and_caches_that_are_no_tests_are_refused() {
    let env = Env::new();
    let workspace = env.workspace("w", &[]);
    let refused = |name: &str| removal(&env, name, true, |r| remove::plan(r).unwrap_err().kind);
    assert_eq!(refused("w"), Kind::WorkspaceModel);
    assert!(workspace.join("config.json").exists());
    let other = tempfile::tempdir().unwrap();
    let places = Places { hub: other.path().into(), ..places(&env) };
    env.snapshot("org/m", 'a');
    let found = find(&env, "org/m");
    let only_tests = true;
    let request =
        Request { found: &found, places: &places, revision_only: false, force: true, only_tests };
    assert_eq!(remove::plan(&request).unwrap_err().kind, Kind::PermissionDenied);
}

#[test]
fn a_running_download_is_an_obstacle_a_stale_lock_is_not() {
    let env = Env::new();
    let m = env.snapshot("org/m", 'a').file("w", "w");
    let lock = m.lock("abc");
    let plan = |force| removal(&env, "org/m", force, remove::plan);
    assert!(plan(false).is_ok());
    let held = File::open(&lock).unwrap();
    held.lock().unwrap();
    let refused = plan(false).unwrap_err();
    assert_eq!(refused.kind, Kind::LocksPresent);
    assert_eq!(refused.matches, [lock.to_str().unwrap()]);
    assert!(plan(true).is_ok());
    drop(held);
    let part = m.repo.join("blobs/abc.12345678.incomplete");
    fs::write(&part, "half").unwrap();
    assert_eq!(plan(false).unwrap_err().kind, Kind::LocksPresent);
    age(&part);
    assert_eq!(rm(&env, "org/m").bytes, 5);
}

#[test]
fn nothing_is_deleted_through_a_link() {
    let env = Env::new();
    let outside = env.root().join("outside");
    fs::create_dir_all(outside.join("snapshots").join("a".repeat(40))).unwrap();
    fs::write(outside.join("precious"), "keep").unwrap();
    symlink(&outside, env.hub().join("models--org--far")).unwrap();
    let refused = |name: &str| removal(&env, name, true, |r| remove::plan(r).unwrap_err().kind);
    assert_eq!(refused("org/far"), Kind::DeletionFailed);

    let m = env.snapshot("org/m", 'a').file("w", "w").reference("main");
    env.snapshot("org/m", 'b').file("v", "v").reference("dev");
    symlink(outside.join("precious"), m.path.join("link")).unwrap();
    symlink(&outside, m.path.join("dir")).unwrap();
    rm(&env, "org/m@main");
    let blobs = m.repo.join("blobs");
    fs::remove_dir_all(&blobs).unwrap();
    symlink(&outside, &blobs).unwrap();
    assert_eq!(refused("org/m"), Kind::DeletionFailed);

    let odd = env.snapshot("org/odd", 'a').file("w", "used through a linked snapshot");
    fs::rename(&odd.path, outside.join("moved")).unwrap();
    symlink(outside.join("moved"), &odd.path).unwrap();
    assert_eq!(refused("org/odd"), Kind::DeletionFailed);
    let plan = prune::plan(&places(&env), SystemTime::now()).unwrap().deletion;
    assert_eq!(plan, prune::plan(&places(&env), SystemTime::UNIX_EPOCH).unwrap().deletion);
    assert!(plan.is_empty());
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"keep");
}

#[test]
fn a_plan_that_no_longer_holds_deletes_nothing() {
    let env = Env::new();
    let (a, _) = two_revisions(&env);
    let changed = |change: &dyn Fn()| -> Error {
        removal(&env, "org/m@aaa", false, |request| {
            let plan = remove::plan(request).unwrap();
            change();
            remove::execute(request, &plan).unwrap_err()
        })
    };
    let e = changed(&|| drop(env.snapshot("org/m", 'c').file("w", "only a")));
    assert_eq!(e.kind, Kind::DeletionFailed);
    assert!(a.path.join("sub/w").exists());
    let e = changed(&|| fs::write(a.repo.join("refs/new"), &a.revision).unwrap());
    assert_eq!((e.kind, a.path.exists()), (Kind::DeletionFailed, true));
}

#[test]
fn blobs_that_vanish_are_no_obstacle() {
    let env = Env::new();
    let (a, b) = two_revisions(&env);
    fs::remove_file(a.path.join("sub/w").canonicalize().unwrap()).unwrap();
    rm(&env, "org/m@aaa");
    assert!(b.path.join("w").exists());
}

#[test]
fn prune_takes_what_nothing_leads_to() {
    let env = Env::new();
    let (a, b) = two_revisions(&env);
    fs::remove_dir_all(a.repo.join("refs/refs")).unwrap();
    fs::remove_file(a.repo.join("refs/v1")).unwrap();
    env.snapshot("org/m", 'c').shared("w", "shared by c");
    let orphan = b.repo.join("blobs/orphan");
    fs::write(&orphan, "orphan").unwrap();
    let (old, young) = (b.repo.join("blobs/x.1.incomplete"), b.repo.join("blobs/y.2.incomplete"));
    fs::write(&old, "old").unwrap();
    fs::write(&young, "young").unwrap();
    age(&old);
    File::open(&young).unwrap().set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    let asides = [".mlxk.AbCdEf.tmp", ".mlxk.0123", ".mlxk.younger"].map(|name| b.repo.join(name));
    fs::write(&asides[0], "").unwrap();
    fs::create_dir(&asides[1]).unwrap();
    fs::write(&asides[2], "").unwrap();
    age(&asides[0]);
    age(&asides[1]);
    let lone = env.snapshot("org/lone", 'd').file("w", "no refs at all, so it stays");
    let (stale, fresh) = (lone.lock("stale"), lone.lock("fresh"));
    age(&stale);
    let plan = prune(&env, an_hour_ago());
    assert_eq!(plan.bytes, ("only a".len() + "shared by c".len() + "orphan".len() + 3) as u64);
    assert!(plan.repos.is_empty() && plan.snapshots.len() == 4 && plan.locks == [stale]);
    assert!(b.path.join("w").exists() && lone.path.join("w").exists());
    assert!(young.exists() && fresh.exists());
    assert_eq!(asides.map(|path| path.exists()), [false, false, true]);
    assert!(prune(&env, an_hour_ago()).is_empty());
}

#[test]
fn prune_leaves_a_model_alone_that_is_being_fetched() {
    let env = Env::new();
    let (a, _) = two_revisions(&env);
    fs::remove_file(a.repo.join("refs/v1")).unwrap();
    fs::remove_dir_all(a.repo.join("refs/refs")).unwrap();
    let held = File::open(a.lock("abc")).unwrap();
    held.lock().unwrap();
    assert!(prune(&env, SystemTime::now()).is_empty());
    assert!(a.path.exists());
}

#[test]
fn prune_takes_a_model_of_which_only_a_begun_download_is_left() {
    let env = Env::new();
    let m = env.snapshot("org/m", 'a').reference("main");
    fs::remove_dir_all(m.repo.join("snapshots")).unwrap();
    let part = m.repo.join("blobs/abc.1.incomplete");
    fs::write(&part, "half").unwrap();
    age(&part);
    assert!(prune(&env, an_hour_ago()).is_empty());
    age(&m.repo);
    assert_eq!(prune(&env, an_hour_ago()).repos, [m.repo]);
}

#[test]
fn prune_collects_shared_payloads_without_a_user() {
    let env = Env::new();
    let x = env.snapshot("org/x", 'a').shared("w", "lost").reference("main");
    env.snapshot("org/y", 'a').shared("w", "used").reference("main");
    fs::remove_dir_all(&x.repo).unwrap();
    let users_of_another = fs::read(payload(&env, "used").with_extension("refs")).unwrap();
    fs::write(payload(&env, "lost").with_extension("refs"), users_of_another).unwrap();
    let plan = prune(&env, SystemTime::now());
    assert_eq!(plan.paths().collect::<Vec<_>>(), [payload(&env, "lost")]);
    assert!(payload(&env, "used").exists());
}
