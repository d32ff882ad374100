//! File list of a model revision on the Hub: the commit, and path, size and digest of each file.

use std::collections::BTreeSet;

use mlxk_core::digest::Digest;
use mlxk_core::store::tree::{Entry, Tree};
use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use ureq::http::{HeaderMap, Method};

use crate::client::{Hub, Request};
use crate::redirect;
use crate::safe_path;
use mlxk_core::progress::Listener;

/// Most pages of a file list; the Hub's pages have 1,000 files.
const MAX_PAGES: usize = 500;

/// Most pages of a file list whose pages have fewer than [`FEW_FILES`] files.
const MAX_SPARSE_PAGES: usize = 100;

/// Number of files on a page that makes a list sparse.
const FEW_FILES: usize = 10;

/// Most files of a model; the Hub advises against more than 100,000.
const MAX_FILES: usize = 500_000;

/// Most bytes of all paths of a model's files.
const MAX_PATHS: usize = 64 << 20;

/// Commit of a model and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Commit id, 40 hexadecimal digits.
    pub commit: String,
    /// Files sorted by path; every path is safe to join to a directory.
    pub files: Vec<RemoteFile>,
}

/// File of a revision on the Hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Path relative to the repository, with `/` as separator.
    pub path: String,
    /// Size of the content in bytes.
    pub size: u64,
    /// Git blob id, 40 hexadecimal digits: of the content, or of the LFS pointer in its place.
    pub blob_id: String,
    /// SHA-256 of the content, 64 hexadecimal digits; only for LFS files.
    pub sha256: Option<String>,
    /// Xet hash of the content, 64 hexadecimal digits, if Xet storage has it.
    pub xet_hash: Option<String>,
}

impl Listing {
    /// File list in the form that a cache stores.
    pub fn tree(&self) -> Tree {
        let entry = |file: &RemoteFile| Entry {
            size: file.size,
            blob_id: file.blob_id.clone(),
            lfs_sha256: file.sha256.clone(),
            lfs_size: file.sha256.as_ref().map(|_| file.size),
            xet_hash: file.xet_hash.clone(),
        };
        Tree::new(self.files.iter().map(|file| (file.path.clone(), entry(file))).collect())
    }
}

impl RemoteFile {
    /// Name of the blob in a cache: the SHA-256 of an LFS file, otherwise the git blob id.
    pub fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.blob_id)
    }

    /// Digest that the content is verified by.
    pub fn digest(&self) -> Result<Digest> {
        self.etag()
            .parse()
            .map_err(|_| invalid_response(&self.path, "lists a file without a hash of it"))
    }

    /// Download URL of the file at `commit` of the model `id`.
    pub fn url(&self, hub: &Hub, id: &str, commit: &str) -> String {
        let path = safe_path::escape_path(&self.path);
        format!("{}/{id}/resolve/{commit}/{path}", hub.remote().endpoint)
    }

    /// Checks access to the file's content with a HEAD request; the list of a gated model is
    /// public.
    pub fn check_access(
        &self,
        hub: &Hub,
        id: &str,
        commit: &str,
        progress: Listener,
    ) -> Result<()> {
        let url = self.url(hub, id, commit);
        let request = Request { method: &Method::HEAD, url: &url, headers: &[], body: &[] };
        let response = hub.retry(&self.path, progress, || hub.send(request).map(|_| ()));
        response.map_err(|e| e.about(id))
    }
}

/// Commit and access mode of a model revision.
#[derive(Clone, Debug)]
pub struct RevisionInfo {
    /// Commit that the revision resolves to.
    pub commit: String,
    /// True if only users who were granted access may download.
    pub gated: bool,
}

/// Resolves `revision` of the model `id` on the Hub.
///
/// # Errors
/// `AccessDenied`, `RepoNotFound`, `HashNotFound`, `DownloadFailed`, and `Validation` for an
/// invalid id or revision.
pub fn info(hub: &Hub, id: &str, revision: &str, progress: Listener) -> Result<RevisionInfo> {
    safe_path::check_id(id)?;
    safe_path::check_revision(revision)?;
    let url = hub.api(&format!("models/{id}/revision/{}", safe_path::escape(revision)));
    let (info, _): (InfoResponse, _) =
        hub.get(&url, progress).map_err(|e| with_subject(e, id, revision))?;
    match info.sha {
        Some(commit) if is_hex(&commit, 40) => {
            let gated = !matches!(info.gated, None | Some(serde_json::Value::Bool(false)));
            Ok(RevisionInfo { commit, gated })
        }
        _ => Err(invalid_response(id, "names no commit")),
    }
}

/// Fetches the file list of a commit, page by page.
///
/// # Errors
/// Errors of [`info`], and `Validation` if a path is unsafe or two files collide, or if the list
/// has no end.
pub fn files(hub: &Hub, id: &str, commit: &str, progress: Listener) -> Result<Listing> {
    let mut url = hub.api(&format!("models/{id}/tree/{commit}?recursive=true&expand=false"));
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    loop {
        let (page, headers): (Vec<TreeEntry>, _) =
            hub.get(&url, progress).map_err(|e| with_subject(e, id, commit))?;
        bytes += page.iter().map(|entry| entry.path.len()).sum::<usize>();
        files.extend(page.into_iter().filter(|entry| entry.kind == "file"));
        let next = next_page(&headers, &url);
        seen.insert(url);
        match next {
            Some(next) if seen.contains(&next) => {
                return Err(invalid_response(id, "lists files in circles"));
            }
            Some(_) if is_endless(seen.len(), files.len(), bytes) => {
                let counted = format!("{} files on {} pages", files.len(), seen.len());
                return Err(invalid_response(id, &format!("lists files without end: {counted}")));
            }
            Some(next) => url = next,
            None => break,
        }
    }
    let mut files = files.into_iter().map(|entry| entry.file(id)).collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    safe_path::check_paths(files.iter().map(|file| &*file.path)).map_err(|e| {
        let subject = format!("{id}: {}", e.subject);
        e.about(subject)
    })?;
    Ok(Listing { commit: commit.to_owned(), files })
}

#[derive(Deserialize)]
struct InfoResponse {
    sha: Option<String>,
    gated: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<LfsEntry>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct LfsEntry {
    oid: String,
    size: u64,
}

impl TreeEntry {
    fn file(self, id: &str) -> Result<RemoteFile> {
        let (sha256, size) = match self.lfs {
            Some(lfs) => (Some(lfs.oid), lfs.size),
            None => (None, self.size),
        };
        let known = sha256.as_deref().is_none_or(|sha| is_hex(sha, 64)) && is_hex(&self.oid, 40);
        if !known {
            return Err(invalid_response(id, &format!("lists {} without a hash of it", self.path)));
        }
        let xet_hash = self.xet_hash.filter(|hash| is_hex(hash, 64));
        Ok(RemoteFile { path: self.path, size, blob_id: self.oid, sha256, xet_hash })
    }
}

/// True if a list that goes on after so many pages, with so many files and bytes of paths, cannot be
/// that of a model.
fn is_endless(pages: usize, files: usize, bytes: usize) -> bool {
    let sparse = pages >= MAX_SPARSE_PAGES && files < FEW_FILES * pages;
    sparse || pages >= MAX_PAGES || files > MAX_FILES || bytes > MAX_PATHS
}

/// URL of the page after `url`, from the header `Link: <...>; rel="next"`.
fn next_page(headers: &HeaderMap, url: &str) -> Option<String> {
    let link = headers.get("link")?.to_str().ok()?;
    let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
    redirect::resolve(url, next.split_once('<')?.1.split_once('>')?.0.as_bytes())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The error with the model as its subject, or model and revision if the revision does not exist.
fn with_subject(error: Error, id: &str, revision: &str) -> Error {
    match error.kind {
        Kind::HashNotFound => error.about(format!("{id}@{revision}")),
        _ => error.about(id),
    }
}

fn invalid_response(id: &str, what: &str) -> Error {
    Error::new(Kind::DownloadFailed, id, format!("the Hub {what}"))
        .hint("HF_ENDPOINT names the Hub; does it speak the API of huggingface.co?")
}
