//! Test Hub, a cache of its own, and helpers that pull from one into the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mlxk_core::Progress;
use mlxk_core::digest::Hasher;
use mlxk_core::{Places, Remote, Result};
use mlxk_hub::pull::{FileFilter, PullOptions, PullPlan};
use mlxk_testhub::Hub;
use tempfile::TempDir;

/// Size of the large file in bytes: more than one piece.
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
            metadata_timeout: Duration::from_millis(500),
            proxies: Default::default(),
        };
        Env { hub, home: TempDir::new().unwrap(), remote }
    }

    /// Environment whose Hub has the model `org/M` of one large file and two small ones.
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

    pub fn pull(&self) -> Result<PullPlan> {
        self.pull_at("main", &FileFilter::default())
    }

    pub fn pull_at(&self, revision: &str, filter: &FileFilter) -> Result<PullPlan> {
        self.pull_with(PullOptions { id: "org/M", revision, filter, bad: &[] }, u64::MAX)
    }

    /// Pulls with a user who cancels once `bytes` bytes have arrived.
    pub fn pull_with(&self, options: PullOptions, bytes: u64) -> Result<PullPlan> {
        let moved = Arc::new(AtomicU64::new(0));
        let seen = moved.clone();
        let cancelled = move || seen.load(Ordering::Relaxed) >= bytes;
        let hub = mlxk_hub::Hub::new(self.remote.clone(), cancelled).unwrap();
        let progress = |event: Progress| {
            if let Progress::Moved { bytes, .. } = event {
                moved.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        hub.interruptible(|| {
            let plan = PullPlan::new(&hub, options, &self.places(), &progress)?;
            if !plan.is_up_to_date() {
                plan.execute(&hub, &progress)?;
            }
            Ok(plan)
        })
    }

    /// Content of a file of the snapshot that `refs/main` points to.
    pub fn read(&self, path: &str) -> Vec<u8> {
        let commit = fs::read_to_string(self.repo().join("refs/main")).unwrap();
        fs::read(self.repo().join("snapshots").join(commit).join(path)).unwrap()
    }

    /// Asserts that every blob of the cache has the content that its name is the digest of.
    pub fn assert_blobs_valid(&self) {
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

/// Bytes whose period is not a divisor of the piece size.
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

/// Paths of all files below `directory`; links are not followed.
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
