//! Preparation and creation of one atomic commit with all changes.

use std::fs::File;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mlxk_core::digest::Hasher;
use mlxk_core::{Error, Kind, Result};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::change::{Change, Content};
use super::diff::Diff;
use super::local::LocalFile;
use super::ndjson_body::NdjsonBody;
use super::repo::{self, RepoState};
use super::{PushOptions, with_subject};
use crate::backoff::{Backoff, sleep};
use crate::client::{Hub, Request};
use crate::error::Attempt;
use crate::listing;
use crate::safe_path;
use mlxk_core::progress::{Listener, Progress};

/// Files per preupload request.
const BATCH: usize = 256;

/// Bytes from the start of each file that the Hub inspects to tell text from binary data.
const SAMPLE: u64 = 512;

#[derive(Deserialize)]
struct PreuploadResponse {
    files: Vec<FileMode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileMode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

/// Changes of the commit, and the files that the repository's own `.gitignore` excludes.
///
/// The Hub decides for every file if it goes to LFS storage or into the commit.
pub fn changes<'a>(
    hub: &Hub,
    options: &PushOptions,
    diff: &'a Diff,
    progress: Listener,
) -> Result<(Vec<Change<'a>>, Vec<&'a LocalFile>)> {
    let files: Vec<_> = diff.files().collect();
    let (mut wanted, mut refused) = (Vec::new(), Vec::new());
    for batch in files.chunks(BATCH) {
        for (file, mode) in modes(hub, options, batch, progress)? {
            match mode {
                UploadMode::Ignored => refused.push(file),
                mode => wanted.push((file, mode)),
            }
        }
    }
    progress(Progress::Check { bytes: wanted.iter().map(|(file, _)| file.size).sum() });
    let change = |(file, mode): (&'a LocalFile, UploadMode)| {
        let large = mode == UploadMode::Lfs;
        let hasher = if large { Hasher::sha256() } else { Hasher::git(file.size) };
        let digest = file.digest(hasher, hub, progress)?.to_string();
        let content = match large {
            true => Content::Large { file, sha256: digest },
            false => Content::Small { file, blob_id: digest },
        };
        Ok(Change { path: &file.path, content })
    };
    let mut changes = wanted.into_par_iter().map(change).collect::<Result<Vec<_>>>()?;
    if options.delete_missing {
        let deleted = |path: &'a String| Change { path, content: Content::Deleted };
        changes.extend(diff.only_remote.iter().map(deleted));
    }
    Ok((changes, refused))
}

/// Way in which the Hub takes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadMode {
    /// Upload to LFS storage.
    Lfs,
    /// Content inside the commit.
    Inline,
    /// Exclusion by the repository's `.gitignore`.
    Ignored,
}

/// Asks the Hub for the upload mode of each file.
fn modes<'a>(
    hub: &Hub,
    options: &PushOptions,
    files: &[&'a LocalFile],
    progress: Listener,
) -> Result<Vec<(&'a LocalFile, UploadMode)>> {
    let mut samples = Vec::new();
    for file in files {
        let sample = STANDARD.encode(sample(file)?);
        samples.push(json!({"path": file.path, "size": file.size, "sample": sample}));
    }
    let branch = safe_path::escape(&options.branch);
    let url = hub.api(&format!("models/{}/preupload/{branch}", options.repo));
    let response: PreuploadResponse =
        hub.post(&url, &json!({"files": samples}), progress).map_err(|e| e.about(&options.repo))?;
    let mut modes = Vec::new();
    for &file in files {
        let mode = response.files.iter().find(|mode| mode.path == file.path).ok_or_else(|| {
            Error::new(Kind::UploadFailed, &file.path, "the Hub does not say how it wants it")
        })?;
        let mode = match mode.upload_mode == "lfs" {
            _ if mode.should_ignore => UploadMode::Ignored,
            true if file.size > 0 => UploadMode::Lfs,
            _ => UploadMode::Inline, // LFS storage refuses empty files
        };
        modes.push((file, mode));
    }
    Ok(modes)
}

fn sample(file: &LocalFile) -> Result<Vec<u8>> {
    let mut sample = Vec::new();
    let read = File::open(&file.disk_path).and_then(|f| f.take(SAMPLE).read_to_end(&mut sample));
    read.map_err(|e| Error::io(&file.disk_path, e))?;
    Ok(sample)
}

/// Commit on the Hub.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Commit id.
    pub id: String,
    /// URL of its page.
    pub url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommitResponse {
    commit_oid: String,
    commit_url: String,
}

/// Creates the commit on top of `parent`, with retries.
///
/// # Errors
/// `UploadFailed` if the branch has moved on from `parent`, and those of the requests.
pub fn create(
    hub: &Hub,
    options: &PushOptions,
    parent: &str,
    changes: &[Change],
    progress: Listener,
) -> Result<Commit> {
    let header = json!({"summary": options.message, "description": "", "parentCommit": parent});
    let mut backoff = Backoff::new();
    loop {
        hub.check()?;
        let failure = match attempt(hub, options, header.clone(), changes) {
            Ok(commit) => return Ok(commit),
            Err(failure) => failure,
        };
        hub.check()?;
        let (wait, reason) = backoff.delay(failure).map_err(|e| with_subject(e, &options.repo))?;
        progress(Progress::Retry { path: "", reason: &reason, wait });
        sleep(wait, || hub.check())?;
        // The commit may have succeeded and only its response be lost.
        if let Some(commit) = find_landed(hub, options, parent, changes, progress)? {
            return Ok(commit);
        }
    }
}

fn attempt(hub: &Hub, options: &PushOptions, header: Value, changes: &[Change]) -> Attempt<Commit> {
    let (mut body, size) = NdjsonBody::new(header, changes)?;
    let branch = safe_path::escape(&options.branch);
    let url = hub.api(&format!("models/{}/commit/{branch}", options.repo));
    let headers = &[("content-type", "application/x-ndjson")];
    let request = Request { method: &Method::POST, url: &url, headers, body: &[] };
    let mut response = hub.upload(request, &mut body, size)?;
    let text = response.body_mut().read_to_string().map_err(|e| hub.network_failure(e, &url))?;
    let answer: CommitResponse = serde_json::from_str(&text).map_err(|e| {
        let message = format!("the Hub does not say what became of the commit: {e}");
        Error::new(Kind::UploadFailed, &options.repo, message)
    })?;
    Ok(Commit { id: answer.commit_oid, url: answer.commit_url })
}

/// Newest commit of the branch, if it is not `parent` and contains all `changes`.
///
/// # Errors
/// `UploadFailed` if it is another commit.
fn find_landed(
    hub: &Hub,
    options: &PushOptions,
    parent: &str,
    changes: &[Change],
    progress: Listener,
) -> Result<Option<Commit>> {
    let RepoState::Ready { commit, .. } =
        repo::state(hub, &options.repo, &options.branch, progress)?
    else {
        return Ok(None);
    };
    if commit == parent {
        return Ok(None);
    }
    let files = listing::files(hub, &options.repo, &commit, progress)?.files;
    let there = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.etag());
    match changes.iter().all(|change| there(change.path) == change.content.etag()) {
        true => {
            let url = format!("{}/{}/commit/{commit}", hub.remote().endpoint, options.repo);
            Ok(Some(Commit { id: commit, url }))
        }
        false => {
            Err(Error::new(Kind::UploadFailed, &options.repo, "somebody else has just committed")
                .hint("nothing of yours was: push again"))
        }
    }
}
