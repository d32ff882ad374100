//! What a revision of a model holds, as the Hub lists it: the commit, and for each file what it is known by.

use std::collections::BTreeSet;

use mlxk_core::digest::Digest;
use mlxk_core::store::tree::{Entry, Tree};
use mlxk_core::{Error, Kind, Result};
use serde::Deserialize;
use ureq::http::{HeaderMap, Method};

use crate::client::{Call, Hub};
use crate::event::Listener;
use crate::names;

/// A revision and its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// The files, sorted by path; every path is safe to be joined to a directory.
    pub files: Vec<RemoteFile>,
}

/// A file of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Relative to the model, with `/`.
    pub path: String,
    /// Bytes of its content.
    pub size: u64,
    /// The id of the git blob, 40 hexadecimal digits: of the content, or of the pointer that stands for it.
    pub blob_id: String,
    /// The SHA-256 of the content, 64 hexadecimal digits, if git holds a pointer only.
    pub sha256: Option<String>,
    /// What Xet knows the content by, 64 hexadecimal digits.
    pub xet_hash: Option<String>,
}

impl Listing {
    /// The list as a cache keeps it.
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
    /// The name of the blob in a cache, which is also what the content can be verified by.
    pub fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.blob_id)
    }

    /// The digest of the content.
    pub fn digest(&self) -> Result<Digest> {
        self.etag().parse().map_err(|_| odd(&self.path, "lists a file without a hash of it"))
    }

    /// The address of the file at `commit` of the model `id`.
    pub fn url(&self, hub: &Hub, id: &str, commit: &str) -> String {
        let path = names::escape_path(&self.path);
        format!("{}/{id}/resolve/{commit}/{path}", hub.remote().endpoint)
    }

    /// Asks for the file without its content: of a gated model everybody may see the list.
    pub fn check_access(&self, hub: &Hub, id: &str, commit: &str, told: Listener) -> Result<()> {
        let url = self.url(hub, id, commit);
        let call = Call { method: &Method::HEAD, url: &url, headers: &[], body: &[] };
        let asked = hub.patiently(&self.path, told, || hub.send(call).map(|_| ()));
        asked.map_err(|e| e.about(id))
    }
}

/// What the Hub says of a model at a revision.
#[derive(Clone, Debug)]
pub struct Info {
    /// The commit that the revision is.
    pub commit: String,
    /// True if it is given only to those who were granted access.
    pub gated: bool,
}

/// Asks which commit `revision` of the model `id` is.
///
/// Errors are `AccessDenied`, `RepoNotFound`, `HashNotFound`, and `DownloadFailed`.
pub fn info(hub: &Hub, id: &str, revision: &str, told: Listener) -> Result<Info> {
    names::check_id(id)?;
    names::check_revision(revision)?;
    let url = hub.api(&format!("models/{id}/revision/{}", names::escape(revision)));
    let (said, _): (SaidInfo, _) = hub.get(&url, told).map_err(|e| named(e, id, revision))?;
    match said.sha {
        Some(commit) if is_hex(&commit, 40) => {
            let gated = !matches!(said.gated, None | Some(serde_json::Value::Bool(false)));
            Ok(Info { commit, gated })
        }
        _ => Err(odd(id, "names no commit")),
    }
}

/// Asks for the files of a commit.
pub fn files(hub: &Hub, id: &str, commit: &str, told: Listener) -> Result<Listing> {
    let mut url = hub.api(&format!("models/{id}/tree/{commit}?recursive=true&expand=false"));
    let mut files = Vec::new();
    let mut asked = BTreeSet::new();
    loop {
        let (page, headers): (Vec<SaidFile>, _) =
            hub.get(&url, told).map_err(|e| named(e, id, commit))?;
        files.extend(page.into_iter().filter(|entry| entry.kind == "file"));
        asked.insert(url);
        match next(&headers) {
            Some(next) if asked.contains(&next) => return Err(odd(id, "lists files in circles")),
            Some(next) => url = next,
            None => break,
        }
    }
    let mut files = files.into_iter().map(|said| said.file(id)).collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    names::check_paths(files.iter().map(|file| &*file.path)).map_err(|e| {
        let subject = format!("{id}: {}", e.subject);
        e.about(subject)
    })?;
    Ok(Listing { commit: commit.to_owned(), files })
}

#[derive(Deserialize)]
struct SaidInfo {
    sha: Option<String>,
    gated: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct SaidFile {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<SaidLfs>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Deserialize)]
struct SaidLfs {
    oid: String,
    size: u64,
}

impl SaidFile {
    fn file(self, id: &str) -> Result<RemoteFile> {
        let (sha256, size) = match self.lfs {
            Some(lfs) => (Some(lfs.oid), lfs.size),
            None => (None, self.size),
        };
        let known = sha256.as_deref().is_none_or(|sha| is_hex(sha, 64)) && is_hex(&self.oid, 40);
        if !known {
            return Err(odd(id, &format!("lists {} without a hash of it", self.path)));
        }
        let xet_hash = self.xet_hash.filter(|hash| is_hex(hash, 64));
        Ok(RemoteFile { path: self.path, size, blob_id: self.oid, sha256, xet_hash })
    }
}

/// The address of the next page: `Link: <...>; rel="next"`.
fn next(headers: &HeaderMap) -> Option<String> {
    let link = headers.get("link")?.to_str().ok()?;
    let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// An error about the model, or about the revision of it that there is none of.
fn named(error: Error, id: &str, revision: &str) -> Error {
    match error.kind {
        Kind::HashNotFound => error.about(format!("{id}@{revision}")),
        _ => error.about(id),
    }
}

fn odd(id: &str, what: &str) -> Error {
    Error::new(Kind::DownloadFailed, id, format!("the Hub {what}"))
        .hint("HF_ENDPOINT names the Hub; does it speak the API of huggingface.co?")
}
