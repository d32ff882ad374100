//! A temporary `HF_HOME` and workspace home, filled in the layout of huggingface_hub.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The temporary directories, which are removed when the value is dropped.
pub struct Env {
    dir: TempDir,
}

/// A revision of a cached model, to be filled with files.
pub struct Snapshot {
    pub hub: PathBuf,
    /// The directory `models--org--name` of the model.
    pub repo: PathBuf,
    /// The snapshot directory of the revision.
    pub path: PathBuf,
    pub revision: String,
}

impl Env {
    pub fn new() -> Env {
        let dir = TempDir::with_prefix("mlxk2_test_").unwrap();
        let env = Env { dir };
        fs::create_dir_all(env.hub()).unwrap();
        fs::create_dir_all(env.home()).unwrap();
        env
    }

    /// The directory `HF_HOME`, links resolved.
    pub fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    /// The directory `HF_HUB_CACHE`.
    pub fn hub(&self) -> PathBuf {
        self.root().join("hub")
    }

    /// The directory `MLXK_WORKSPACE_HOME`.
    pub fn home(&self) -> PathBuf {
        self.root().join("workspaces")
    }

    /// An empty revision of the cached model `name`; its commit is 40 times `digit`.
    pub fn snapshot(&self, name: &str, digit: char) -> Snapshot {
        let repo = self.hub().join(format!("models--{}", name.replace('/', "--")));
        let revision: String = std::iter::repeat_n(digit, 40).collect();
        let path = repo.join("snapshots").join(&revision);
        fs::create_dir_all(&path).unwrap();
        fs::create_dir_all(repo.join("blobs")).unwrap();
        Snapshot { hub: self.hub(), repo, path, revision }
    }

    /// The workspace `name` with `files`; `config.json` is added if it is not among them.
    pub fn workspace(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let path = self.home().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.json"), "{\"model_type\": \"llama\"}\n").unwrap();
        for (name, content) in files {
            write(&path.join(name), content);
        }
        path
    }
}

impl Snapshot {
    /// Adds a file as a blob of the model and a link to it.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Snapshot {
        let blob = self.repo.join("blobs").join(sha256(content.as_ref()));
        if !blob.exists() {
            write(&blob, content.as_ref());
        }
        self.link(name, &blob)
    }

    /// Adds a file whose content is in the shared store of the cache.
    pub fn shared(self, name: &str, content: impl AsRef<[u8]>) -> Snapshot {
        let hash = sha256(content.as_ref());
        let store = self.hub.join("blobs");
        let payload = store.join(&hash[..2]).join(&hash);
        write(&store.join(".huggingface-shared-blobs"), b"1\n");
        if !payload.exists() {
            write(&payload, content.as_ref());
        }
        let blob = self.repo.join("blobs").join(&hash);
        if blob.symlink_metadata().is_err() {
            symlink(format!("../../blobs/{}/{hash}", &hash[..2]), &blob).unwrap();
            let line = format!("{}\n", blob.strip_prefix(&self.hub).unwrap().display());
            let manifest = payload.with_extension("refs");
            let before = fs::read_to_string(&manifest).unwrap_or_default();
            write(&manifest, (before + &line).as_bytes());
        }
        self.link(name, &blob)
    }

    /// Points the ref `name` at this revision; the file has no newline, like those of huggingface_hub.
    pub fn reference(self, name: &str) -> Snapshot {
        write(&self.repo.join("refs").join(name), self.revision.as_bytes());
        self
    }

    /// Adds the lock file that a download of the blob `name` leaves behind, and returns its path.
    pub fn lock(&self, name: &str) -> PathBuf {
        let directory = self.hub.join(".locks").join(self.repo.file_name().unwrap());
        let lock = directory.join(name).with_extension("lock");
        write(&lock, b"");
        lock
    }

    fn link(self, name: &str, blob: &Path) -> Snapshot {
        let file = self.path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let up = "../".repeat(2 + Path::new(name).components().count() - 1);
        symlink(format!("{up}blobs/{}", blob.file_name().unwrap().display()), file).unwrap();
        self
    }
}

/// The SHA-256 of the content, which names its blob.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
