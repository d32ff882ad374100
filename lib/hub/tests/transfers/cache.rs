//! Cache layout of huggingface_hub, and concurrent use of the cache by several programs.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mlxk_core::Kind;
use mlxk_core::Progress;
use mlxk_core::store::tree::Tree;
use mlxk_hub::cache::CachedRepo;
use mlxk_hub::pull::{FileFilter, PullOptions, PullPlan};

use crate::env::{Env, LARGE, content, files, sha256};

#[test]
fn the_layout_is_that_of_huggingface_hub() {
    let env = Env::with_model();
    let plan = env.pull().unwrap();
    let commit = env.hub.repo("org/M").commit();
    assert_eq!(fs::read_to_string(env.repo().join("refs/main")).unwrap(), commit);
    let snapshot = env.repo().join("snapshots").join(&commit);
    let target = |path: &str| fs::read_link(snapshot.join(path)).unwrap().display().to_string();
    let sha = sha256(&content(LARGE));
    assert_eq!(target("model.safetensors"), format!("../../blobs/{sha}"));
    assert!(target("sub/tokenizer.json").starts_with("../../../blobs/"));
    let tree = Tree::read(&env.repo(), &commit).unwrap();
    assert_eq!(tree, plan.listing.tree());
    assert_eq!(tree.files["model.safetensors"].lfs_sha256, Some(sha.clone()));
    let tag = fs::read_to_string(env.home.path().join("hub/CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    assert!(env.home.path().join("hub/.locks/models--org--M").join(sha + ".lock").exists());
    assert_eq!(files(&env.repo().join("blobs")).len(), 3);
}

#[test]
fn cached_files_are_not_fetched_again() {
    let env = Env::with_model();
    env.pull().unwrap();
    env.hub.forget();
    assert!(env.pull().unwrap().is_up_to_date());
    assert_eq!(env.hub.requests().len(), 2, "which commit, and which files");
    env.hub.repo("org/M").file("config.json", "{\"new\": 1}");
    env.hub.forget();
    let plan = env.pull().unwrap();
    assert_eq!(plan.missing().map(|file| &*file.path).collect::<Vec<_>>(), ["config.json"]);
    assert_eq!(env.read("config.json"), b"{\"new\": 1}");
    assert_eq!(env.hub.served("/objects/"), 0);
    assert_eq!(fs::read_dir(env.repo().join("snapshots")).unwrap().count(), 2);
}

#[test]
fn refs_follow_the_pulled_revision() {
    let env = Env::with_model();
    let repo = env.hub.repo("org/M");
    let first = repo.branch("v1").commit();
    repo.file("config.json", "{\"v\": 2}");
    let all = FileFilter::default();
    let config = |commit: &str| {
        fs::read_to_string(env.repo().join("snapshots").join(commit).join("config.json")).unwrap()
    };
    env.pull_at("v1", &all).unwrap();
    assert_eq!(fs::read_to_string(env.repo().join("refs/v1")).unwrap(), first);
    assert!(!env.repo().join("refs/main").exists());
    assert_eq!(config(&first), "{}");
    env.pull().unwrap();
    assert_eq!(config(&repo.commit()), "{\"v\": 2}");
    env.pull_at(&first, &all).unwrap();
    assert_eq!(files(&env.repo().join("refs")).len(), 2, "a commit needs no ref");
}

#[test]
fn patterns_select_files() {
    let env = Env::with_model();
    let filter = FileFilter { include: vec!["*.json".into()], exclude: vec!["sub/".into()] };
    let plan = env.pull_at("main", &filter).unwrap();
    assert_eq!(plan.missing().count(), 1);
    assert_eq!(env.hub.served("/objects/"), 0);
    let snapshot = env.repo().join("snapshots").join(env.hub.repo("org/M").commit());
    assert_eq!(files(&snapshot).len(), 1);
    env.pull().unwrap();
    assert_eq!(files(&snapshot).len(), 3);
}

#[test]
fn a_plan_creates_nothing() {
    let env = Env::with_model();
    let filter = FileFilter::default();
    let options = PullOptions { id: "org/M", revision: "main", filter: &filter, bad: &[] };
    let plan = PullPlan::new(&env.client(), options, &env.places(), &|_| {}).unwrap();
    assert_eq!(plan.bytes(), LARGE as u64 + 2 + 8);
    assert!(files(env.home.path()).is_empty());
}

#[test]
fn bad_files_are_fetched_again_and_no_others() {
    let env = Env::with_model();
    env.pull().unwrap();
    let blob = env.blob(&content(LARGE));
    fs::write(&blob, vec![0; LARGE]).unwrap();
    let commit = env.hub.repo("org/M").commit();
    env.hub.repo("org/M").file("config.json", "{\"newer\": 1}");
    env.hub.forget();
    let filter = FileFilter::default();
    let bad = ["model.safetensors".to_owned()];
    let options = PullOptions { id: "org/M", revision: &commit, filter: &filter, bad: &bad };
    env.pull_with(options, u64::MAX).unwrap();
    assert_eq!(fs::read(&blob).unwrap(), content(LARGE));
    assert_eq!(env.hub.served("/objects/"), LARGE as u64);
    assert_eq!(env.hub.served("config.json"), 0);
    let strange = ["what.bin".to_owned()];
    let options = PullOptions { bad: &strange, ..options };
    assert!(env.pull_with(options, u64::MAX).unwrap_err().message.contains("no such file"));
}

#[test]
fn a_file_of_the_wrong_size_is_fetched_anew() {
    let env = Env::with_model();
    env.pull().unwrap();
    let blob = env.blob(&content(LARGE));
    File::options().write(true).open(&blob).unwrap().set_len(1000).unwrap();
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn the_blob_lock_of_another_program_is_waited_for() {
    let env = Env::with_model();
    let sha = sha256(&content(LARGE));
    let directory = env.home.path().join("hub/.locks/models--org--M");
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join(format!("{sha}.lock"))).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let pull = scope.spawn(|| env.pull().unwrap());
        thread::sleep(Duration::from_millis(800));
        assert!(!pull.is_finished());
        assert_eq!(env.hub.served("/objects/"), 0);
        // The other program has fetched it.
        fs::create_dir_all(env.repo().join("blobs")).unwrap();
        fs::write(env.blob(&content(LARGE)), content(LARGE)).unwrap();
        lock.unlock().unwrap();
    });
    assert_eq!(env.hub.served("/objects/"), 0, "what the other fetched is taken");
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn concurrent_pulls_fetch_everything_once() {
    let env = Env::with_model();
    thread::scope(|scope| {
        let pulls = [scope.spawn(|| env.pull()), scope.spawn(|| env.pull())];
        for pull in pulls {
            pull.join().unwrap().unwrap();
        }
    });
    assert_eq!(env.hub.served("/objects/"), LARGE as u64);
    assert_eq!(env.read("model.safetensors"), content(LARGE));
    env.assert_blobs_valid();
}

#[test]
fn shared_blobs_are_linked_if_they_verify() {
    for good in [true, false] {
        let env = Env::with_model();
        env.hub.repo("org/M").keep_in_xet();
        let xet = listed_xet(&env);
        let store = env.home.path().join("hub/blobs");
        fs::create_dir_all(store.join(&xet[..2])).unwrap();
        fs::write(store.join(".huggingface-shared-blobs"), "1\n").unwrap();
        let payload = store.join(&xet[..2]).join(&xet);
        let mut shared = content(LARGE);
        shared[5] ^= u8::from(!good);
        fs::write(&payload, shared).unwrap();
        env.pull().unwrap();
        assert_eq!(env.read("model.safetensors"), content(LARGE));
        let blob = env.blob(&content(LARGE));
        assert_eq!(env.hub.served("/xorbs/") == 0, good);
        let link = fs::read_link(&blob).unwrap().display().to_string();
        assert_eq!(link, format!("../../blobs/{}/{xet}", &xet[..2]));
        let manifest = fs::read_to_string(payload.with_extension("refs")).unwrap();
        let etag = sha256(&content(LARGE));
        assert_eq!(manifest, format!("models--org--M/blobs/{etag}\n"));
    }
}

#[test]
fn downloads_are_shared_if_there_is_a_store() {
    let env = Env::with_model();
    for repo in ["org/M", "org/N"] {
        env.hub.repo(repo).file("model.safetensors", content(LARGE)).keep_in_xet();
    }
    let xet = listed_xet(&env);
    let store = env.home.path().join("hub/blobs");
    fs::create_dir_all(&store).unwrap();
    let mine = "of somebody else";
    fs::write(store.join("file"), mine).unwrap();
    env.pull().unwrap();
    let blob = env.blob(&content(LARGE));
    assert!(!blob.is_symlink(), "a directory of that name is no store");
    fs::remove_file(store.join("file")).unwrap();
    fs::remove_dir_all(env.repo()).unwrap();
    fs::write(store.join(".huggingface-shared-blobs"), "1\n").unwrap();
    env.pull().unwrap();
    let payload = store.join(&xet[..2]).join(&xet);
    assert_eq!(blob.canonicalize().unwrap(), payload.canonicalize().unwrap());
    assert_eq!(payload.metadata().unwrap().permissions().mode() & 0o777, 0o444);
    env.hub.forget();
    let filter = FileFilter::default();
    let other = |bad: &[String]| {
        let options = PullOptions { id: "org/N", revision: "main", filter: &filter, bad };
        env.pull_with(options, u64::MAX).unwrap();
    };
    other(&[]);
    assert_eq!(env.hub.served("/xorbs/") + env.hub.served("/objects/"), 0);
    // What is bad there is bad for all, and repaired for all.
    fs::remove_file(&payload).unwrap();
    fs::write(&payload, vec![0; LARGE]).unwrap();
    other(&["model.safetensors".to_owned()]);
    assert!(env.read("model.safetensors") == content(LARGE));
    let etag = sha256(&content(LARGE));
    let users = mlxk_core::store::shared::users(&payload, &env.places().hub).unwrap().unwrap();
    let user = |repo: &str| env.places().hub.join(repo).join("blobs").join(&etag);
    assert!(users.into_iter().eq([user("models--org--M"), user("models--org--N")]));
}

fn listed_xet(env: &Env) -> String {
    let commit = env.hub.repo("org/M").commit();
    let listing = mlxk_hub::listing::files(&env.client(), "org/M", &commit, &|_| {}).unwrap();
    listing.files.into_iter().find_map(|file| file.xet_hash).unwrap()
}

#[test]
fn an_incomplete_snapshot_is_completed() {
    let env = Env::with_model();
    let commit = env.hub.repo("org/M").commit();
    let snapshot = env.repo().join("snapshots").join(&commit);
    fs::create_dir_all(&snapshot).unwrap();
    symlink("../../blobs/nowhere", snapshot.join("config.json")).unwrap();
    env.pull().unwrap();
    assert_eq!(env.read("config.json"), b"{}");
    assert_eq!(files(&snapshot).len(), 3);
}

#[test]
fn a_full_disk_is_refused_before_anything_is_created() {
    let env = Env::with_model();
    env.hub.repo("org/M").claim_size("model.safetensors", 1 << 60);
    let error = env.pull().unwrap_err();
    assert_eq!(error.kind, Kind::DownloadFailed);
    assert!(error.message.contains("the disk has no room: 11529"), "{error}");
    assert!(error.hint.unwrap().contains("HF_HUB_CACHE"));
    assert!(files(env.home.path()).is_empty());
    assert_eq!(env.hub.served("/objects/") + env.hub.served("/resolve-cache/"), 0);
}

#[test]
fn shared_blobs_need_no_space_and_no_download() {
    const HUGE: u64 = 4 << 40; // of a sparse file
    let env = Env::with_model();
    env.hub.repo("org/M").keep_in_xet();
    share(&env, content(LARGE));
    let filter = FileFilter::default();
    let options = PullOptions { id: "org/M", revision: "main", filter: &filter, bad: &[] };
    let hub = env.client();
    let plan = PullPlan::new(&hub, options, &env.places(), &|_| {}).unwrap();
    let fetched = plan.execute(&hub, &|_| {}).unwrap();
    assert_eq!((fetched.files.len(), fetched.bytes), (2, 2 + 8));
    let env = Env::with_model();
    env.hub.repo("org/M").keep_in_xet().claim_size("model.safetensors", HUGE);
    let payload = share(&env, vec![0]);
    File::options().write(true).open(payload).unwrap().set_len(HUGE).unwrap();
    assert_eq!(env.pull_with(options, 1).unwrap_err().message, "interrupted");
}

#[test]
fn an_unusable_store_is_skipped() {
    for there in [true, false] {
        let env = Env::with_model();
        env.hub.repo("org/M").keep_in_xet();
        let payload = share(&env, content(LARGE));
        let secret = env.home.path().join("secret");
        fs::write(&secret, "of somebody else").unwrap();
        symlink(&secret, payload.with_extension("refs")).unwrap();
        if !there {
            fs::remove_file(&payload).unwrap();
        }
        env.pull().unwrap();
        assert_eq!(env.read("model.safetensors"), content(LARGE));
        assert!(!env.blob(&content(LARGE)).is_symlink());
        assert_eq!(fs::read(&secret).unwrap(), b"of somebody else");
    }
}

/// Puts `content` into the shared blob store as the large file; returns its path.
fn share(env: &Env, content: Vec<u8>) -> PathBuf {
    let xet = listed_xet(env);
    let store = env.home.path().join("hub/blobs");
    fs::create_dir_all(store.join(&xet[..2])).unwrap();
    fs::write(store.join(".huggingface-shared-blobs"), "1\n").unwrap();
    let payload = store.join(&xet[..2]).join(&xet);
    fs::write(&payload, content).unwrap();
    payload
}

#[test]
fn a_blob_that_another_program_removes_fails_the_pull() {
    let env = Env::with_model();
    let filter = FileFilter::default();
    let options = PullOptions { id: "org/M", revision: "main", filter: &filter, bad: &[] };
    let hub = env.client();
    let plan = PullPlan::new(&hub, options, &env.places(), &|_| {}).unwrap();
    let remove = |event: Progress| {
        if let Progress::Done { path: "model.safetensors" } = event {
            fs::remove_file(env.blob(&content(LARGE))).unwrap();
        }
    };
    let error = plan.execute(&hub, &remove).unwrap_err();
    assert_eq!(error.subject, "org/M: model.safetensors");
    assert_eq!(error.message, "another program has removed it meanwhile");
    assert!(!env.repo().join("refs/main").exists());
    env.pull().unwrap();
    assert_eq!(env.read("model.safetensors"), content(LARGE));
}

#[test]
fn the_snapshot_lock_of_another_program_is_waited_for() {
    let env = Env::with_model();
    let commit = env.hub.repo("org/M").commit();
    let directory = env.home.path().join("hub/.locks/models--org--M");
    fs::create_dir_all(&directory).unwrap();
    let lock = File::create(directory.join(format!("{commit}.lock"))).unwrap();
    lock.lock().unwrap();
    let snapshot = env.repo().join("snapshots").join(&commit);
    thread::scope(|scope| {
        let pull = scope.spawn(|| env.pull().unwrap());
        thread::sleep(Duration::from_millis(1200));
        assert!(!pull.is_finished() && env.blob(&content(LARGE)).exists() && !snapshot.exists());
        lock.unlock().unwrap();
    });
    assert_eq!(files(&snapshot).len(), 3);
}

/// huggingface_hub takes every file below `refs` for a ref, and reports a dangling one as
/// corruption.
#[test]
fn no_temporary_file_appears_below_refs() {
    let env = Env::new();
    let cache = CachedRepo::new(&env.places().hub, "org/M");
    let refs = env.repo().join("refs");
    fs::create_dir_all(&refs).unwrap();
    let done = AtomicBool::new(false);
    let strange = thread::scope(|scope| {
        let look = scope.spawn(|| {
            let mut strange = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let names = fs::read_dir(&refs).unwrap().map(|e| e.unwrap().file_name());
                strange.extend(names.filter(|name| name != "main"));
            }
            strange
        });
        for n in 0..300 {
            cache.set_ref("main", &format!("{n:040}")).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        look.join().unwrap()
    });
    assert!(strange.is_empty(), "{strange:?}");
}

/// Replaces the links of the current snapshot by the files they lead to, and removes the blobs.
fn copy_without_links(env: &Env) {
    for link in files(&env.repo().join("snapshots")) {
        let content = fs::read(&link).unwrap();
        fs::remove_file(&link).unwrap();
        fs::write(&link, content).unwrap();
    }
    fs::remove_dir_all(env.repo().join("blobs")).unwrap();
}

#[test]
fn a_cache_copied_without_links_is_complete() {
    let env = Env::with_model();
    env.pull().unwrap();
    copy_without_links(&env);
    env.hub.forget();
    assert!(env.pull().unwrap().is_up_to_date());
    assert_eq!(env.hub.served("/resolve/") + env.hub.served("/objects/"), 0);
    // What is damaged or new is fetched, and nothing else.
    let commit = env.hub.repo("org/M").commit();
    let snapshot = env.repo().join("snapshots").join(commit);
    fs::write(snapshot.join("config.json"), "cut").unwrap();
    let plan = env.pull().unwrap();
    assert_eq!(plan.missing().map(|file| &*file.path).collect::<Vec<_>>(), ["config.json"]);
    assert_eq!(env.read("config.json"), b"{}");
    assert!(!snapshot.join("model.safetensors").is_symlink());
}

#[test]
fn a_bad_file_of_a_cache_without_links_is_replaced() {
    let env = Env::with_model();
    env.pull().unwrap();
    copy_without_links(&env);
    let snapshot = env.repo().join("snapshots").join(env.hub.repo("org/M").commit());
    fs::write(snapshot.join("config.json"), "[]").unwrap();
    let bad = ["config.json".to_owned()];
    let filter = FileFilter::default();
    let options = PullOptions { id: "org/M", revision: "main", filter: &filter, bad: &bad };
    env.pull_with(options, u64::MAX).unwrap();
    assert_eq!(env.read("config.json"), b"{}");
}
