//! What the API tells: of repositories, revisions, trees, and who asks.

use std::collections::BTreeSet;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Shared;
use crate::access::{Answer, Refused, Who, read, see, who};
use crate::repo::{Access, Commit, Repo};

/// Every commit happened then.
pub const DATE: &str = "2026-01-01T00:00:00.000Z";

type Name = (String, String);
type AtRevision = (String, String, String);
type AtPath = (String, String, String, String);

#[derive(Deserialize, Default)]
struct Wish {
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    expand: Option<String>,
    #[serde(default)]
    blobs: Option<String>,
    #[serde(default)]
    cursor: usize,
    limit: Option<usize>,
}

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/whoami-v2", get(whoami))
        .route("/api/models", get(models))
        .route("/api/models/{org}/{name}", get(newest))
        .route("/api/models/{org}/{name}/revision/{revision}", get(info))
        .route("/api/models/{org}/{name}/tree/{revision}", get(root))
        .route("/api/models/{org}/{name}/tree/{revision}/{*path}", get(tree))
        .route("/api/models/{org}/{name}/paths-info/{revision}", post(paths))
        .route("/api/models/{org}/{name}/refs", get(refs))
        .route("/api/models/{org}/{name}/commits/{revision}", get(commits))
        .route("/api/models/{org}/{name}/auth-check", get(check))
}

async fn whoami(headers: HeaderMap) -> Answer<Json<Value>> {
    let name = match who(&headers)? {
        Who::Anybody => return Err(Refused::new(401, None, "Invalid username or password.")),
        Who::Stranger => "stranger",
        Who::Owner => "owner",
    };
    let token = json!({"accessToken": {"displayName": "test", "role": "write"}});
    Ok(Json(json!({"type": "user", "id": name, "name": name, "fullname": name,
        "isPro": false, "orgs": [{"type": "org", "name": "org"}], "auth": token})))
}

async fn models(State(hub): State<Shared>) -> Json<Value> {
    let kept = hub.lock();
    let public = kept.repos().filter(|(_, repo)| repo.access != Access::Private);
    Json(public.map(|(name, repo)| describe(name, repo, "main", false)).collect())
}

async fn newest(
    hub: State<Shared>,
    Path((org, name)): Path<Name>,
    wish: Query<Wish>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    info(hub, Path((org, name, "main".to_string())), wish, headers).await
}

async fn info(
    State(hub): State<Shared>,
    Path((org, name, revision)): Path<AtRevision>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    let (kept, name) = (hub.lock(), format!("{org}/{name}"));
    let repo = see(&kept, &name, &headers)?;
    repo.find(&revision).ok_or_else(|| Refused::revision(&revision))?;
    Ok(Json(describe(&name, repo, &revision, wish.blobs.is_some())))
}

fn describe(name: &str, repo: &Repo, revision: &str, blobs: bool) -> Value {
    let (sha, commit) = repo.find(revision).unwrap();
    let siblings = commit.files.iter().map(|(path, file)| match (blobs, &file.sha256) {
        (false, _) => json!({"rfilename": path}),
        (true, None) => json!({"rfilename": path, "size": file.size, "blobId": file.oid}),
        (true, Some(hash)) => json!({"rfilename": path, "size": file.size, "blobId": file.oid,
            "lfs": {"sha256": hash, "size": file.size, "pointerSize": 130}}),
    });
    let siblings: Vec<_> = siblings.collect();
    let gated = if repo.access == Access::Gated { json!("auto") } else { json!(false) };
    json!({"_id": "0", "id": name, "modelId": name, "author": name.split('/').next(), "sha": sha,
        "private": repo.access == Access::Private, "gated": gated, "disabled": false,
        "lastModified": DATE, "createdAt": DATE, "downloads": 0, "likes": 0, "tags": [],
        "siblings": siblings})
}

async fn root(
    hub: State<Shared>,
    Path((org, name, revision)): Path<AtRevision>,
    wish: Query<Wish>,
    headers: HeaderMap,
) -> Answer<Response> {
    tree(hub, Path((org, name, revision, String::new())), wish, headers).await
}

async fn tree(
    State(hub): State<Shared>,
    Path((org, name, revision, path)): Path<AtPath>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> Answer<Response> {
    let (kept, name) = (hub.lock(), format!("{org}/{name}"));
    let repo = see(&kept, &name, &headers)?;
    let (id, commit) = repo.find(&revision).ok_or_else(|| Refused::revision(&revision))?;
    let below = if path.is_empty() { path } else { format!("{path}/") };
    let all = list(commit, &id, &below, &wish);
    if all.is_empty() && !below.is_empty() {
        return Err(Refused::entry(&below));
    }
    let page = wish.limit.unwrap_or(kept.page).min(kept.page).max(1);
    let end = wish.cursor + page;
    let more = end < all.len();
    let entries: Vec<_> = all.into_iter().skip(wish.cursor).take(page).collect();
    let mut response = Json(entries).into_response();
    if more {
        let deep = if wish.recursive { "&recursive=true" } else { "" };
        let (revision, below) = (revision.replace('/', "%2F"), below.trim_end_matches('/'));
        let at = format!("{}/api/models/{name}/tree/{revision}/{below}", hub.endpoint);
        let link = format!("<{}?cursor={end}{deep}>; rel=\"next\"", at.trim_end_matches('/'));
        response.headers_mut().insert(header::LINK, link.parse().unwrap());
    }
    Ok(response)
}

/// The files and directories of `commit` below a directory, which ends with a slash if it is one.
fn list(commit: &Commit, id: &str, below: &str, wish: &Wish) -> Vec<Value> {
    let mut directories = BTreeSet::new();
    let mut entries = Vec::new();
    for (path, file) in &commit.files {
        let Some(rest) = path.strip_prefix(below) else { continue };
        let deep = rest.match_indices('/').map(|(at, _)| &path[..below.len() + at]);
        for directory in if wish.recursive { deep.take(usize::MAX) } else { deep.take(1) } {
            if directories.insert(directory) {
                entries.push(json!({"type": "directory", "oid": id, "size": 0, "path": directory}));
            }
        }
        if wish.recursive || !rest.contains('/') {
            entries.push(file.entry(path));
        }
    }
    if wish.expand.as_deref().is_some_and(|wish| wish == "true" || wish == "1") {
        let last = json!({"id": id, "title": "commit", "date": DATE});
        entries.iter_mut().for_each(|entry| entry["lastCommit"] = last.clone());
    }
    entries
}

async fn paths(
    State(hub): State<Shared>,
    Path((org, name, revision)): Path<AtRevision>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    let (kept, name) = (hub.lock(), format!("{org}/{name}"));
    let repo = see(&kept, &name, &headers)?;
    let (id, commit) = repo.find(&revision).ok_or_else(|| Refused::revision(&revision))?;
    let entries = wanted(&headers, &body).into_iter().filter_map(|path| {
        let below = format!("{}/", path.trim_end_matches('/'));
        match commit.files.get(&path) {
            Some(file) => Some(file.entry(&path)),
            None => commit
                .files
                .keys()
                .any(|file| file.starts_with(&below))
                .then(|| json!({"type": "directory", "oid": id, "size": 0, "path": path})),
        }
    });
    Ok(Json(entries.collect()))
}

/// The paths of a request, which is a form or JSON.
fn wanted(headers: &HeaderMap, body: &Bytes) -> Vec<String> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.contains("json")) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let paths = body["paths"].as_array().cloned().unwrap_or_default();
        return paths.iter().filter_map(|path| Some(path.as_str()?.to_string())).collect();
    }
    let pairs = form_urlencoded::parse(body).filter(|(key, _)| key == "paths");
    pairs.map(|(_, path)| path.into_owned()).collect()
}

async fn refs(
    State(hub): State<Shared>,
    Path((org, name)): Path<Name>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    let kept = hub.lock();
    let repo = see(&kept, &format!("{org}/{name}"), &headers)?;
    let branches = repo.refs.iter().map(
        |(name, id)| json!({"name": name, "ref": format!("refs/heads/{name}"), "targetCommit": id}),
    );
    let branches: Vec<_> = branches.collect();
    Ok(Json(json!({"branches": branches, "converts": [], "tags": []})))
}

async fn commits(
    State(hub): State<Shared>,
    Path((org, name, revision)): Path<AtRevision>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    let kept = hub.lock();
    let repo = see(&kept, &format!("{org}/{name}"), &headers)?;
    let (id, _) = repo.find(&revision).ok_or_else(|| Refused::revision(&revision))?;
    Ok(Json(json!([{"id": id, "title": "commit", "message": "", "date": DATE, "authors": []}])))
}

async fn check(
    State(hub): State<Shared>,
    Path((org, name)): Path<Name>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    read(&hub.lock(), &format!("{org}/{name}"), &headers)?;
    Ok(Json(json!({})))
}
