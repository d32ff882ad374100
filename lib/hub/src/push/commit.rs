//! One commit with all changes, made whole or not at all.

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
use super::lines::Lines;
use super::local::LocalFile;
use super::plan::Plan;
use super::repo::{self, State};
use super::{Wish, named};
use crate::client::{Call, Hub};
use crate::event::{Event, Listener};
use crate::listing;
use crate::names;
use crate::patience::{Patience, sleep};
use crate::refusal::Attempt;

/// Files asked about in one question.
const BATCH: usize = 256;

/// Bytes of each file that the Hub wants to see, to tell text from data.
const SAMPLE: u64 = 512;

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

/// What the commit has to change, as the Hub wants it: which files are large is for it to say. And
/// the files that it does not take: those that the repository's own `.gitignore` names.
pub fn changes<'a>(
    hub: &Hub,
    wish: &Wish,
    plan: &'a Plan,
    told: Listener,
) -> Result<(Vec<Change<'a>>, Vec<&'a LocalFile>)> {
    let files: Vec<_> = plan.files().collect();
    let (mut wanted, mut refused) = (Vec::new(), Vec::new());
    for batch in files.chunks(BATCH) {
        for (file, mode) in modes(hub, wish, batch, told)? {
            match mode {
                Some(large) => wanted.push((file, large)),
                None => refused.push(file),
            }
        }
    }
    told(Event::Check { bytes: wanted.iter().map(|(file, _)| file.size).sum() });
    let change = |(file, large): (&'a LocalFile, bool)| {
        let hasher = if large { Hasher::sha256() } else { Hasher::git(file.size) };
        let digest = file.digest(hasher, hub, told)?.to_string();
        let content = match large {
            true => Content::Large { file, sha256: digest },
            false => Content::Small { file, blob_id: digest },
        };
        Ok(Change { path: &file.path, content })
    };
    let mut changes = wanted.into_par_iter().map(change).collect::<Result<Vec<_>>>()?;
    if wish.delete_missing {
        let deleted = |path: &'a String| Change { path, content: Content::Deleted };
        changes.extend(plan.only_there.iter().map(deleted));
    }
    Ok((changes, refused))
}

/// The files, each with whether it is a large one to the Hub; none if it does not take it.
fn modes<'a>(
    hub: &Hub,
    wish: &Wish,
    files: &[&'a LocalFile],
    told: Listener,
) -> Result<Vec<(&'a LocalFile, Option<bool>)>> {
    let mut asked = Vec::new();
    for file in files {
        let sample = STANDARD.encode(sample(file)?);
        asked.push(json!({"path": file.path, "size": file.size, "sample": sample}));
    }
    let branch = names::escape(&wish.branch);
    let url = hub.api(&format!("models/{}/preupload/{branch}", wish.repo));
    let said: Modes =
        hub.post(&url, &json!({"files": asked}), told).map_err(|e| e.about(&wish.repo))?;
    let mut modes = Vec::new();
    for &file in files {
        let mode = said.files.iter().find(|mode| mode.path == file.path).ok_or_else(|| {
            Error::new(Kind::UploadFailed, &file.path, "the Hub does not say how it wants it")
        })?;
        // The storage takes no file of nothing.
        let large = mode.upload_mode == "lfs" && file.size > 0;
        modes.push((file, Some(large).filter(|_| !mode.should_ignore)));
    }
    Ok(modes)
}

fn sample(file: &LocalFile) -> Result<Vec<u8>> {
    let mut sample = Vec::new();
    let read = File::open(&file.disk).and_then(|f| f.take(SAMPLE).read_to_end(&mut sample));
    read.map_err(|e| Error::io(&file.disk, e))?;
    Ok(sample)
}

/// The commit that was made.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its id.
    pub commit: String,
    /// Where it can be looked at.
    pub url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    commit_oid: String,
    commit_url: String,
}

/// Makes the commit on top of `parent`, which must still be the newest.
pub fn make(
    hub: &Hub,
    wish: &Wish,
    parent: &str,
    changes: &[Change],
    told: Listener,
) -> Result<Made> {
    let header = json!({"summary": wish.message, "description": "", "parentCommit": parent});
    let mut patience = Patience::new();
    loop {
        hub.check()?;
        let failure = match attempt(hub, wish, header.clone(), changes) {
            Ok(made) => return Ok(made),
            Err(failure) => failure,
        };
        hub.check()?;
        let (wait, reason) = patience.wait(failure).map_err(|e| named(e, &wish.repo))?;
        told(Event::Retry { path: "", reason: &reason, wait });
        sleep(wait, || hub.check())?;
        // It may be the answer that was lost, and not the commit.
        if let Some(made) = landed(hub, wish, parent, changes, told)? {
            return Ok(made);
        }
    }
}

fn attempt(hub: &Hub, wish: &Wish, header: Value, changes: &[Change]) -> Attempt<Made> {
    let (mut lines, size) = Lines::new(header, changes)?;
    let branch = names::escape(&wish.branch);
    let url = hub.api(&format!("models/{}/commit/{branch}", wish.repo));
    let headers = &[("content-type", "application/x-ndjson")];
    let call = Call { method: &Method::POST, url: &url, headers, body: &[] };
    let mut response = hub.upload(call, &mut lines, size)?;
    let text = response.body_mut().read_to_string().map_err(|e| hub.lost(e, &url))?;
    let answer: Answer = serde_json::from_str(&text).map_err(|e| {
        let message = format!("the Hub does not say what became of the commit: {e}");
        Error::new(Kind::UploadFailed, &wish.repo, message)
    })?;
    Ok(Made { commit: answer.commit_oid, url: answer.commit_url })
}

/// The commit, if the branch has moved on and holds all of `changes`.
fn landed(
    hub: &Hub,
    wish: &Wish,
    parent: &str,
    changes: &[Change],
    told: Listener,
) -> Result<Option<Made>> {
    let State::Ready { commit, .. } = repo::look(hub, &wish.repo, &wish.branch, told)? else {
        return Ok(None);
    };
    if commit == parent {
        return Ok(None);
    }
    let files = listing::files(hub, &wish.repo, &commit, told)?.files;
    let there = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.etag());
    match changes.iter().all(|change| there(change.path) == change.content.etag()) {
        true => {
            let url = format!("{}/{}/commit/{commit}", hub.remote().endpoint, wish.repo);
            Ok(Some(Made { commit, url }))
        }
        false => {
            Err(Error::new(Kind::UploadFailed, &wish.repo, "somebody else has just committed")
                .hint("nothing of yours was: push again"))
        }
    }
}
