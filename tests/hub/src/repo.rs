//! What the Hub keeps: repositories, their commits, and content by its hash.

use std::collections::{BTreeMap, HashMap};
use std::fs::File as DiskFile;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use memmap2::Mmap;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::fault::Faults;
use crate::log::Log;
use crate::xet::{self, Object};

/// Files of this many bytes and more are large ones.
const LARGE: usize = 10 << 20;
/// Names that make a file a large one, whatever its size.
const LARGE_NAMES: &[&str] = &[".safetensors", ".bin", ".gguf", ".npz", ".model"];

/// Who may read a repository. Its owner may read and write always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Its owner; nobody else learns that it exists.
    Private,
    /// Everybody sees what there is, its owner gets the files.
    Gated,
}

/// The whole Hub.
pub struct State {
    /// The address of the API.
    pub endpoint: String,
    /// The address of the storage of large files.
    pub storage: String,
    pub faults: Faults,
    pub log: Log,
    kept: Mutex<Kept>,
}

/// What changes.
pub struct Kept {
    repos: BTreeMap<String, Repo>,
    /// Content of large files by its SHA-256.
    pub objects: HashMap<String, Bytes>,
    /// Objects of a Xet storage, chunk by chunk, by the hash that it knows content by.
    pub xorbs: HashMap<String, Arc<Vec<Object>>>,
    /// The chunks of objects that clients brought to it, by hash.
    pub deposits: HashMap<String, Vec<Vec<u8>>>,
    /// Parts of uploads under way: hash and number.
    pub parts: BTreeMap<(String, usize), Bytes>,
    /// Entries in an answer that lists files.
    pub page: usize,
}

/// A repository.
pub struct Repo {
    pub access: Access,
    /// Branches and tags to commits.
    pub refs: BTreeMap<String, String>,
    commits: HashMap<String, Commit>,
    xet: bool,
}

/// The files of a commit by path.
#[derive(Clone, Default)]
pub struct Commit {
    pub files: BTreeMap<String, File>,
}

/// A file of a commit.
#[derive(Clone)]
pub struct File {
    pub content: Bytes,
    /// The size that is told.
    pub size: u64,
    /// The git object id: of the pointer file, if it is a large one.
    pub oid: String,
    /// The SHA-256 of a large one.
    pub sha256: Option<String>,
    /// What the Xet storage has it by.
    pub xet: Option<String>,
}

impl State {
    pub fn new(endpoint: String, storage: String) -> State {
        let kept = Kept {
            repos: BTreeMap::new(),
            objects: HashMap::new(),
            xorbs: HashMap::new(),
            deposits: HashMap::new(),
            parts: BTreeMap::new(),
            page: 1000,
        };
        let (faults, log) = (Faults::default(), Log::default());
        State { endpoint, storage, faults, log, kept: Mutex::new(kept) }
    }

    pub fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// Creates a repository; false if it exists.
    pub fn create(&self, name: &str, access: Access) -> bool {
        self.lock().create(name, access)
    }

    pub fn set_access(&self, name: &str, access: Access) {
        self.lock().repo_mut(name).access = access;
    }

    pub fn keep_in_xet(&self, name: &str) {
        self.change(name, |repo, files| {
            repo.xet = true;
            files.values_mut().for_each(|file| file.xet = file.xet_hash());
        });
        // Now, and not while a client waits.
        for file in self.commit_files(name, "main").into_values() {
            file.xet.map(|hash| self.lock().packed(&hash));
        }
    }

    pub fn put(&self, name: &str, path: &str, content: Bytes) {
        let file = File::new(path, content);
        let mut kept = self.lock();
        if let Some(hash) = &file.sha256 {
            kept.objects.insert(hash.clone(), file.content.clone());
        }
        kept.repo_mut(name).change(|_, files| {
            files.insert(path.to_string(), file);
        });
    }

    pub fn claim_size(&self, name: &str, path: &str, size: u64) {
        self.change(name, |_, files| files.get_mut(path).unwrap().size = size);
    }

    pub fn remove(&self, name: &str, path: &str) {
        self.change(name, |_, files| {
            files.remove(path).unwrap();
        });
    }

    pub fn branch(&self, name: &str, branch: &str) {
        let mut kept = self.lock();
        let repo = kept.repo_mut(name);
        repo.refs.insert(branch.to_string(), repo.refs["main"].clone());
    }

    pub fn commit_of(&self, name: &str, revision: &str) -> Option<String> {
        Some(self.lock().repo(name)?.find(revision)?.0)
    }

    pub fn files(&self, name: &str, revision: &str) -> Vec<(String, Bytes)> {
        let files = self.commit_files(name, revision).into_iter();
        files.map(|(path, file)| (path, file.content)).collect()
    }

    pub fn blobs(&self, name: &str, revision: &str) -> Vec<(String, Bytes)> {
        let files = self.commit_files(name, revision).into_values();
        files.map(|file| (file.etag().to_owned(), file.content)).collect()
    }

    fn commit_files(&self, name: &str, revision: &str) -> BTreeMap<String, File> {
        let kept = self.lock();
        let found = kept.repo(name).and_then(|repo| repo.find(revision));
        found.map(|(_, commit)| commit.files.clone()).unwrap_or_default()
    }

    fn change(&self, name: &str, edit: impl FnOnce(&mut Repo, &mut BTreeMap<String, File>)) {
        self.lock().repo_mut(name).change(edit);
    }
}

impl Kept {
    pub fn repo(&self, name: &str) -> Option<&Repo> {
        self.repos.get(name)
    }

    /// The objects that hold the content which a Xet storage knows by `hash`.
    pub fn packed(&mut self, hash: &str) -> Option<Arc<Vec<Object>>> {
        if !self.xorbs.contains_key(hash) {
            let content = self.objects.get(&xet::hash(hash))?;
            self.xorbs.insert(hash.to_string(), Arc::new(xet::pack(content)));
        }
        self.xorbs.get(hash).cloned()
    }

    pub fn repos(&self) -> impl Iterator<Item = (&String, &Repo)> {
        self.repos.iter()
    }

    /// The repository, which must exist.
    pub fn repo_mut(&mut self, name: &str) -> &mut Repo {
        self.repos.get_mut(name).unwrap()
    }

    pub fn create(&mut self, name: &str, access: Access) -> bool {
        let new = !self.repos.contains_key(name);
        self.repos.entry(name.to_string()).or_insert_with(|| Repo::new(access));
        new
    }

    pub fn delete(&mut self, name: &str) -> bool {
        self.repos.remove(name).is_some()
    }
}

impl Repo {
    fn new(access: Access) -> Repo {
        let (refs, commits) = (BTreeMap::new(), HashMap::new());
        let mut repo = Repo { access, refs, commits, xet: false };
        repo.commit("main", Commit::default());
        repo
    }

    /// The commit that a branch, a tag or the beginning of a commit id names.
    pub fn find(&self, revision: &str) -> Option<(String, &Commit)> {
        let id = match self.refs.get(revision) {
            Some(id) => id,
            None if revision.len() < 7 => return None,
            None => self.commits.keys().find(|id| id.starts_with(revision))?,
        };
        Some((id.clone(), &self.commits[id]))
    }

    /// Makes `commit` the newest of the branch; returns its id.
    pub fn commit(&mut self, branch: &str, mut commit: Commit) -> String {
        for file in commit.files.values_mut() {
            file.xet = if self.xet { file.xet_hash() } else { None };
        }
        let mut hash = Sha1::new_with_prefix(self.commits.len().to_string());
        for (path, file) in &commit.files {
            hash.update(format!("\0{path}\0{}", file.oid));
        }
        let id = hex(&hash.finalize());
        self.commits.insert(id.clone(), commit);
        self.refs.insert(branch.to_string(), id.clone());
        id
    }

    fn change(&mut self, edit: impl FnOnce(&mut Repo, &mut BTreeMap<String, File>)) {
        let mut commit = self.commits[&self.refs["main"]].clone();
        edit(self, &mut commit.files);
        self.commit("main", commit);
    }
}

impl File {
    /// A file, large by its name or size.
    pub fn new(path: &str, content: Bytes) -> File {
        if is_large(path, content.len()) { File::large(content) } else { File::small(content) }
    }

    /// A file that git keeps.
    pub fn small(content: Bytes) -> File {
        let oid = git_oid(&content);
        File { size: content.len() as u64, oid, sha256: None, xet: None, content }
    }

    /// A file of which git keeps a pointer.
    pub fn large(content: Bytes) -> File {
        let sha256 = hex(&Sha256::digest(&content));
        let oid = git_oid(pointer(&sha256, content.len()).as_bytes());
        File { size: content.len() as u64, oid, sha256: Some(sha256), xet: None, content }
    }

    /// What the API tells of it.
    pub fn entry(&self, path: &str) -> Value {
        let mut entry = json!({"type": "file", "oid": self.oid, "size": self.size, "path": path});
        if let Some(hash) = &self.sha256 {
            let pointer = pointer(hash, self.content.len()).len();
            entry["lfs"] = json!({"oid": hash, "size": self.size, "pointerSize": pointer});
        }
        if let Some(xet) = &self.xet {
            entry["xetHash"] = json!(xet);
        }
        entry
    }

    /// What its ETag says.
    pub fn etag(&self) -> &str {
        self.sha256.as_ref().unwrap_or(&self.oid)
    }

    fn xet_hash(&self) -> Option<String> {
        self.sha256.as_deref().map(xet::hash)
    }
}

/// Whether the Hub wants a file as a large one.
pub fn is_large(path: &str, size: usize) -> bool {
    size >= LARGE || LARGE_NAMES.iter().any(|end| path.ends_with(end))
}

/// The file as bytes without reading it.
pub fn mapped(disk: &Path) -> io::Result<Bytes> {
    let file = DiskFile::open(disk)?;
    // SAFETY: that the file does not change is asked of who calls.
    Ok(Bytes::from_owner(unsafe { Mmap::map(&file)? }))
}

fn git_oid(content: &[u8]) -> String {
    let hash = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
    hex(&hash.chain_update(content).finalize())
}

fn pointer(sha256: &str, size: usize) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
