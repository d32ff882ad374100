//! Test Hub, workspaces, and helpers that push one to the other.

use std::fs;
use std::time::Duration;

use mlxk_core::Error;
use mlxk_core::remote::{Remote, Token};
use mlxk_core::workspace::sentinel::{self, Made};
use mlxk_hub::Hub;
use mlxk_hub::push::{ChangeCounts, PushOptions, Pushed, push};
use mlxk_testhub::{self as testhub, OWNER};
use tempfile::TempDir;

pub const MIB: usize = 1 << 20;

pub fn client(hub: &testhub::Hub, token: &str) -> Hub {
    let remote = Remote {
        endpoint: hub.endpoint().to_owned(),
        token: Token::new(token),
        offline: false,
        xet: false,
        shared_blobs: false,
        timeout: Duration::from_secs(5),
        metadata_timeout: Duration::from_secs(5),
        proxies: Default::default(),
    };
    Hub::new(remote, || false).unwrap()
}

/// Options of a private push that may create the repository.
pub fn options(repo: &str) -> PushOptions {
    PushOptions {
        repo: repo.into(),
        branch: "main".into(),
        message: "test".into(),
        private: true,
        create: true,
        delete_missing: false,
        dry_run: false,
    }
}

pub fn push_with(
    hub: &testhub::Hub,
    dir: &TempDir,
    options: &PushOptions,
) -> Result<Pushed, Error> {
    push(&client(hub, OWNER), dir.path(), options, &|_| {})
}

pub fn pushed(hub: &testhub::Hub, dir: &TempDir, options: &PushOptions) -> Pushed {
    push_with(hub, dir, options).unwrap()
}

pub fn write(dir: &TempDir, path: &str, content: impl AsRef<[u8]>) {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Workspace with large and small files, and several files that a push ignores.
pub fn workspace() -> TempDir {
    let dir = TempDir::new().unwrap();
    write(&dir, "config.json", "{\"model_type\": \"llama\"}\n");
    write(&dir, "sub/ä b.txt", "hello");
    write(&dir, "empty.bin", "");
    write(&dir, "model.safetensors", noise(3 * MIB + 7));
    for ignored in [
        ".git/HEAD",
        ".DS_Store",
        ".gitignore",
        "sub/__pycache__/x.pyc",
        "venv/bin/python",
        "y.pyc",
        ".hf_cache/hub/x",
        ".cache/huggingface/download/x",
    ] {
        write(&dir, ignored, "not for others");
    }
    sentinel::manage(dir.path(), &Made { operation: "clone", ..Made::default() }).unwrap();
    dir
}

/// Deterministic pseudorandom bytes.
pub fn noise(size: usize) -> Vec<u8> {
    (0..size as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// Paths of the repository's files, without `.gitattributes`.
pub fn paths(hub: &testhub::Hub, repo: &str, revision: &str) -> Vec<String> {
    let files = hub.repo(repo).files(revision).into_iter().map(|(path, _)| path);
    files.filter(|path| path != ".gitattributes").collect()
}

pub fn content(hub: &testhub::Hub, repo: &str, path: &str) -> Vec<u8> {
    let files = hub.repo(repo).files("main");
    files.into_iter().find(|(name, _)| name == path).unwrap().1.to_vec()
}

/// Number of requests with this method whose path contains `part`.
pub fn requests(hub: &testhub::Hub, method: &str, part: &str) -> usize {
    let requests = hub.requests();
    requests.iter().filter(|r| r.method == method && r.path.contains(part)).count()
}

pub fn change(added: usize, modified: usize, deleted: usize) -> ChangeCounts {
    ChangeCounts { added, modified, deleted }
}
