//! A Hub, a cache of its own, and the ways to pull from one into the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mlxk_core::digest::Hasher;
use mlxk_core::{Places, Remote, Result};
use mlxk_hub::Event;
use mlxk_hub::pull::{Choice, Plan, Wish};
use mlxk_testhub::Hub;
use tempfile::TempDir;

/// The size of the large file: more than a piece.
pub const LARGE: usize = (17 << 20) + 12345;

pub struct Env {
    pub hub: Hub,
    pub home: TempDir,
    pub remote: Remote,
}

impl Env {
    pub fn new() -> Env {
        let hub = Hub::start();
        let remote = Remote {
            endpoint: hub.endpoint().to_owned(),
            token: None,
            offline: false,
            xet: true,
            shared_blobs: true,
            timeout: Duration::from_millis(500),
            proxy: None,
        };
        Env { hub, home: TempDir::new().unwrap(), remote }
    }

    /// With a model of one large file and two small ones.
    pub fn with_model() -> Env {
        let env = Env::new();
        env.hub
            .repo("org/M")
            .file("config.json", "{}")
            .file("sub/tokenizer.json", "{\"a\": 1}")
            .file("model.safetensors", content(LARGE));
        env
    }

    pub fn places(&self) -> Places {
        let root = self.home.path().to_owned();
        Places { hub: root.join("hub"), root, workspaces: None }
    }

    pub fn client(&self) -> mlxk_hub::Hub {
        mlxk_hub::Hub::new(self.remote.clone(), || false).unwrap()
    }

    pub fn repo(&self) -> PathBuf {
        self.home.path().join("hub/models--org--M")
    }

    pub fn blob(&self, content: &[u8]) -> PathBuf {
        self.repo().join("blobs").join(sha256(content))
    }

    pub fn pull(&self) -> Result<Plan> {
        self.pull_at("main", &Choice::default())
    }

    pub fn pull_at(&self, revision: &str, choice: &Choice) -> Result<Plan> {
        self.pull_with(Wish { id: "org/M", revision, choice, bad: &[] }, u64::MAX)
    }

    /// Pulls until so many bytes have moved; then the user has had enough.
    pub fn pull_with(&self, wish: Wish, bytes: u64) -> Result<Plan> {
        let moved = Arc::new(AtomicU64::new(0));
        let seen = moved.clone();
        let cancelled = move || seen.load(Ordering::Relaxed) >= bytes;
        let hub = mlxk_hub::Hub::new(self.remote.clone(), cancelled).unwrap();
        let told = |event: Event| {
            if let Event::Moved { bytes, .. } = event {
                moved.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        hub.interruptible(|| {
            let plan = Plan::new(&hub, wish, &self.places(), &told)?;
            if !plan.is_settled() {
                plan.execute(&hub, &told)?;
            }
            Ok(plan)
        })
    }

    /// The content of a file of the snapshot that `refs/main` names.
    pub fn read(&self, path: &str) -> Vec<u8> {
        let commit = fs::read_to_string(self.repo().join("refs/main")).unwrap();
        fs::read(self.repo().join("snapshots").join(commit).join(path)).unwrap()
    }

    /// Every file in the cache has the content that its name promises, and nothing else is there.
    pub fn assert_true(&self) {
        for blob in files(&self.repo().join("blobs")) {
            let name = blob.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".incomplete") || blob.is_symlink() {
                continue;
            }
            let content = fs::read(&blob).unwrap();
            let mut hasher =
                if name.len() == 64 { Hasher::sha256() } else { Hasher::git(content.len() as u64) };
            hasher.update(&content);
            assert_eq!(hasher.finish().to_string(), name);
        }
    }
}

/// Bytes that do not repeat at the distance of a piece.
pub fn content(size: usize) -> Vec<u8> {
    let block: Vec<u8> =
        (0..65_537_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut content = block.repeat(size.div_ceil(block.len()));
    content.truncate(size);
    content
}

pub fn sha256(content: &[u8]) -> String {
    let mut hasher = Hasher::sha256();
    hasher.update(content);
    hasher.finish().to_string()
}

/// All files below `directory`, links not followed.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return all;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all.sort();
    all
}
