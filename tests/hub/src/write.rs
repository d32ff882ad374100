//! What clients change: repositories, branches, and commits with the files that come before them.

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post, put};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Shared;
use crate::access::{self, Answer, Refused};
use crate::repo::{Access, Commit, File, Kept, hex, is_large};

/// Uploads above this many bytes come in parts of as many.
const PART: usize = 16 << 20;

type Name = (String, String);
type AtRevision = (String, String, String);

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/repos/create", post(create))
        .route("/api/repos/delete", delete(remove))
        .route("/api/validate-yaml", post(card))
        .route("/api/models/{org}/{name}/settings", put(settings))
        .route("/api/models/{org}/{name}/branch/{branch}", post(branch).delete(unbranch))
        .route("/api/models/{org}/{name}/preupload/{revision}", post(preupload))
        .route("/api/models/{org}/{name}/commit/{revision}", post(commit))
        .route("/{org}/{name}/info/lfs/objects/batch", post(batch))
        .route("/{org}/{name}/info/lfs/complete/{hash}", post(complete))
        .route("/{org}/{name}/info/lfs/verify", post(verify))
        .layer(DefaultBodyLimit::disable())
}

async fn create(State(hub): State<Shared>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    access::own(&headers)?;
    let wish = object(&body)?;
    let name = full_name(&wish)?;
    let private = wish["private"] == true || wish["visibility"] == "private";
    let access = if private { Access::Private } else { Access::Public };
    let new = hub.create(&name, access);
    let url = format!("{}/{name}", hub.endpoint);
    let mut answer = json!({"url": url, "id": name, "name": name, "private": private});
    if new {
        return Ok(Json(answer).into_response());
    }
    // Clients that do not mind take the address from the refusal.
    answer["error"] = json!("You already created this model repo");
    Ok((StatusCode::CONFLICT, Json(answer)).into_response())
}

async fn remove(State(hub): State<Shared>, headers: HeaderMap, body: Bytes) -> Answer<Json<Value>> {
    access::own(&headers)?;
    let name = full_name(&object(&body)?)?;
    if !hub.lock().delete(&name) {
        return Err(Refused::new(404, Some("RepoNotFound"), "Repository not found"));
    }
    Ok(Json(json!({})))
}

fn full_name(wish: &Value) -> Answer<String> {
    let name = wish["name"].as_str().ok_or_else(|| bad("a name is missing"))?;
    Ok(format!("{}/{name}", wish["organization"].as_str().unwrap_or("owner")))
}

/// Every model card is a good one.
async fn card() -> Json<Value> {
    Json(json!({"errors": [], "warnings": []}))
}

async fn settings(
    State(hub): State<Shared>,
    Path((org, name)): Path<Name>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    let (wish, mut kept) = (object(&body)?, hub.lock());
    let repo = access::write(&mut kept, &format!("{org}/{name}"), &headers)?;
    let private = wish["private"] == true || wish["visibility"] == "private";
    let gated = wish["gated"].is_string();
    repo.access = match (private, gated) {
        (true, _) => Access::Private,
        (false, true) => Access::Gated,
        (false, false) => Access::Public,
    };
    Ok(Json(json!({"private": private})))
}

async fn branch(
    State(hub): State<Shared>,
    Path((org, name, branch)): Path<AtRevision>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    let (wish, mut kept) = (object(&body)?, hub.lock());
    let repo = access::write(&mut kept, &format!("{org}/{name}"), &headers)?;
    let from = wish["startingPoint"].as_str().unwrap_or("main");
    let (id, _) = repo.find(from).ok_or_else(|| Refused::revision(from))?;
    if repo.refs.contains_key(&branch) {
        return Err(Refused::new(409, None, format!("Reference {branch} already exists")));
    }
    repo.refs.insert(branch, id);
    Ok(Json(json!({})))
}

async fn unbranch(
    State(hub): State<Shared>,
    Path((org, name, branch)): Path<AtRevision>,
    headers: HeaderMap,
) -> Answer<Json<Value>> {
    let mut kept = hub.lock();
    let repo = access::write(&mut kept, &format!("{org}/{name}"), &headers)?;
    repo.refs.remove(&branch).ok_or_else(|| Refused::revision(&branch))?;
    Ok(Json(json!({})))
}

/// Tells how the Hub wants each file, and what it has of that name.
async fn preupload(
    State(hub): State<Shared>,
    Path((org, name, revision)): Path<AtRevision>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    let (wish, mut kept) = (object(&body)?, hub.lock());
    let repo = access::write(&mut kept, &format!("{org}/{name}"), &headers)?;
    let (_, commit) = repo.find(&revision).ok_or_else(|| Refused::revision(&revision))?;
    let mut answers = Vec::new();
    for file in wish["files"].as_array().ok_or_else(|| bad("no files"))? {
        let path = file["path"].as_str().ok_or_else(|| bad("a file without path"))?;
        let size = usize::try_from(file["size"].as_u64().unwrap_or(0)).unwrap();
        let mode = if is_large(path, size) { "lfs" } else { "regular" };
        let known = commit.files.get(path).map(File::etag);
        // Of the patterns in it, plain names will do here.
        let ignored = commit.files.get(".gitignore").is_some_and(|rules| {
            rules.content.split(|c| *c == b'\n').any(|rule| rule == path.as_bytes())
        });
        answers
            .push(json!({"path": path, "uploadMode": mode, "shouldIgnore": ignored, "oid": known}));
    }
    Ok(Json(json!({"files": answers, "commitOid": null})))
}

/// Tells where to put large files that are not there yet.
async fn batch(
    State(hub): State<Shared>,
    Path((org, name)): Path<Name>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    let (wish, mut kept) = (object(&body)?, hub.lock());
    let name = format!("{org}/{}", name.trim_end_matches(".git"));
    access::write(&mut kept, &name, &headers)?;
    let multipart =
        wish["transfers"].as_array().is_some_and(|known| known.contains(&json!("multipart")));
    let mut objects = Vec::new();
    for object in wish["objects"].as_array().ok_or_else(|| bad("no objects"))? {
        let hash = object["oid"].as_str().ok_or_else(|| bad("an object without oid"))?;
        let size = usize::try_from(object["size"].as_u64().unwrap_or(0)).unwrap();
        let mut answer = json!({"oid": hash, "size": size, "authenticated": true});
        if !kept.objects.contains_key(hash) {
            let git = format!("{}/{name}.git/info/lfs", hub.endpoint);
            let upload = uploads(&hub.storage, &git, hash, size, multipart);
            answer["actions"] =
                json!({"upload": upload, "verify": {"href": format!("{git}/verify")}});
        }
        objects.push(answer);
    }
    let transfer = if multipart { "multipart" } else { "basic" };
    let answer = json!({"transfer": transfer, "objects": objects, "hash_algo": "sha256"});
    let kind = [(header::CONTENT_TYPE, "application/vnd.git-lfs+json")];
    Ok((kind, answer.to_string()).into_response())
}

/// Where to put a file: at once, or in parts with an address each.
fn uploads(storage: &str, git: &str, hash: &str, size: usize, multipart: bool) -> Value {
    let at = |part: usize| format!("{storage}/uploads/{hash}/{part}");
    if !multipart || size <= PART {
        return json!({"href": at(0)});
    }
    let mut parts = json!({"chunk_size": PART.to_string()});
    for part in 1..=size.div_ceil(PART) {
        parts[part.to_string()] = json!(at(part));
    }
    json!({"href": format!("{git}/complete/{hash}"), "header": parts})
}

/// Takes a file (part 0) or one of its parts. On the origin of the storage.
pub async fn upload(
    State(hub): State<Shared>,
    Path((hash, part)): Path<(String, usize)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Response> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Refused::new(400, None, "Only one auth mechanism allowed"));
    }
    let mut kept = hub.lock();
    if part == 0 {
        store(&mut kept, &hash, body)?;
    } else {
        kept.parts.insert((hash.clone(), part), body);
    }
    Ok([(header::ETAG, format!("\"{hash}-{part}\""))].into_response())
}

async fn complete(
    State(hub): State<Shared>,
    Path((_, _, hash)): Path<AtRevision>,
    body: Bytes,
) -> Answer<Json<Value>> {
    let (wish, mut kept) = (object(&body)?, hub.lock());
    let mut whole = BytesMut::new();
    for part in wish["parts"].as_array().ok_or_else(|| bad("no parts"))? {
        let number = usize::try_from(part["partNumber"].as_u64().unwrap_or(0)).unwrap();
        if part["etag"] != format!("\"{hash}-{number}\"") {
            return Err(bad("the ETag of a part is another one"));
        }
        let part = kept.parts.remove(&(hash.clone(), number));
        whole.extend_from_slice(&part.ok_or_else(|| bad("a part did not come"))?);
    }
    store(&mut kept, &hash, whole.freeze())?;
    Ok(Json(json!({"success": true})))
}

fn store(kept: &mut Kept, hash: &str, content: Bytes) -> Answer<()> {
    if hex(&Sha256::digest(&content)) != hash {
        return Err(bad("the content has another hash"));
    }
    kept.objects.insert(hash.to_string(), content);
    Ok(())
}

async fn verify(State(hub): State<Shared>, headers: HeaderMap, body: Bytes) -> Answer<Json<Value>> {
    access::own(&headers)?;
    let wish = object(&body)?;
    stored(&hub.lock(), &wish)?;
    Ok(Json(json!({})))
}

/// The content of a large file, whose size may be told.
fn stored(kept: &Kept, value: &Value) -> Answer<Bytes> {
    let content = value["oid"].as_str().and_then(|hash| kept.objects.get(hash));
    let content = content.ok_or_else(|| bad("that large file was not uploaded"))?;
    match value["size"].as_u64() {
        Some(size) if size != content.len() as u64 => Err(bad("the size is another one")),
        _ => Ok(content.clone()),
    }
}

/// Takes a commit, whose lines are a header and the changes.
async fn commit(
    State(hub): State<Shared>,
    Path((org, name, revision)): Path<AtRevision>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    let (mut kept, name) = (hub.lock(), format!("{org}/{name}"));
    let repo = access::write(&mut kept, &name, &headers)?;
    let (parent, commit) = repo.find(&revision).ok_or_else(|| Refused::revision(&revision))?;
    if !repo.refs.contains_key(&revision) {
        return Err(bad("commits are made on branches"));
    }
    let mut commit = commit.clone();
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = object(line)?;
        match line["value"]["parentCommit"].as_str() {
            Some(known) if known != parent => {
                return Err(Refused::new(
                    412,
                    None,
                    "A commit has happened since. Please refresh and try again.",
                ));
            }
            _ => apply(&kept, &mut commit, &line)?,
        }
    }
    let id = kept.repo_mut(&name).commit(&revision, commit);
    let url = format!("{}/{name}/commit/{id}", hub.endpoint);
    Ok(Json(json!({"success": true, "commitUrl": url, "commitOid": id, "hookOutput": ""})))
}

fn apply(kept: &Kept, commit: &mut Commit, line: &Value) -> Answer<()> {
    let value = &line["value"];
    let path = value["path"].as_str().unwrap_or_default();
    match line["key"].as_str() {
        Some("header") => {}
        Some("file") => {
            let content = value["content"].as_str().ok_or_else(|| bad("a file without content"))?;
            let content = match value["encoding"].as_str() {
                Some("base64") => STANDARD.decode(content).map_err(|e| bad(&e.to_string()))?,
                _ => content.as_bytes().to_vec(),
            };
            commit.files.insert(path.to_string(), File::small(content.into()));
        }
        Some("lfsFile") => {
            let file = File::large(stored(kept, value)?);
            commit.files.insert(path.to_string(), file);
        }
        Some("deletedFile") => {
            commit.files.remove(path).ok_or_else(|| Refused::entry(path))?;
        }
        Some("deletedFolder") => {
            let below = format!("{}/", path.trim_end_matches('/'));
            commit.files.retain(|file, _| !file.starts_with(&below));
        }
        _ => return Err(bad("an unknown kind of change")),
    }
    Ok(())
}

fn object(body: &[u8]) -> Answer<Value> {
    serde_json::from_slice(body).map_err(|e| bad(&e.to_string()))
}

fn bad(reason: &str) -> Refused {
    Refused::new(400, None, reason)
}
