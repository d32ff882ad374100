//! A model goes out and comes back: cloned, changed, pushed, and pulled elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mlxk_testhub::{Hub, OWNER, Origin};

use crate::env::{Env, Run, safetensors};

fn online(env: &Env, hub: &Hub, program: &str, args: &[&str]) -> Run {
    env.run(program).env("HF_ENDPOINT", hub.endpoint()).env("HF_TOKEN", OWNER).args(args)
}

/// The files below a directory, links followed.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            all.extend(contents(&path).into_iter().map(|(below, file)| (name.join(below), file)));
        } else {
            all.insert(name, fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn what_was_cloned_changed_and_pushed_is_pulled_elsewhere() {
    let (here, hub, elsewhere) = (Env::new(), Hub::start(), Env::new());
    let repo = hub.repo("org/Original");
    repo.file("config.json", r#"{"model_type": "llama", "num_hidden_layers": 1}"#);
    repo.file("model.safetensors", safetensors()).file("tokenizer.json", "{}");
    repo.file("old/notes.txt", "old").file("tokenizer_config.json", "{}");
    online(&here, &hub, "mlxk-clone", &["org/Original", "work"]).ok();

    let work = here.workspaces().join("work");
    fs::write(work.join("tokenizer.json"), r#"{"version": "1.0"}"#).unwrap();
    fs::remove_dir_all(work.join("old")).unwrap();
    fs::create_dir(work.join("new")).unwrap();
    // Large enough to be sent in parts.
    fs::write(work.join("new/vocabulary.model"), vec![7; 20_000_000]).unwrap();
    let push = ["--private", "--create", "--delete-missing", "work", "org/Changed"];
    online(&here, &hub, "mlxk-push", &push).ok();

    online(&elsewhere, &hub, "mlxk-pull", &["org/Changed"]).ok();
    let commit = hub.repo("org/Changed").commit();
    let snapshot = elsewhere.hub().join("models--org--Changed/snapshots").join(&commit);
    let mut sent = contents(&work);
    sent.remove(Path::new(".mlxk_workspace.json")).unwrap();
    assert!(contents(&snapshot) == sent);
    elsewhere.run("mlxk-health").args(["--verify", "org/Changed"]).ok();

    hub.forget();
    online(&here, &hub, "mlxk-push", &push).ok();
    assert_eq!(hub.repo("org/Changed").commit(), commit, "nothing changed since");
    assert!(!hub.requests().iter().any(|request| request.method == "PUT"));
}

#[test]
fn the_storage_of_large_files_sees_no_token() {
    let (env, hub) = (Env::new(), Hub::start());
    hub.repo("org/M").file("config.json", "{}").file("model.safetensors", safetensors());
    online(&env, &hub, "mlxk-pull", &["org/M"]).ok();
    online(&env, &hub, "mlxk-clone", &["org/M", "work"]).ok();
    fs::write(env.workspaces().join("work/more.safetensors"), safetensors().repeat(2)).unwrap();
    online(&env, &hub, "mlxk-push", &["--private", "--create", "work", "org/N"]).ok();
    let requests = hub.requests();
    assert!(requests.iter().any(|request| request.method == "PUT"), "{requests:?}");
    for request in requests {
        let known = request.authorization.is_some();
        assert_eq!(known, request.origin == Origin::Api, "{request:?}");
    }
}
