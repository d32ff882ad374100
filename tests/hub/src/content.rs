//! The files themselves: where they are said to be, and their bytes, whole or in ranges.

use std::ops::Range;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::Shared;
use crate::access::{Answer, Refused, read};
use crate::repo::File;
use crate::write;

/// What a path in a URL does not hold as it is.
const NOT_IN_PATHS: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'?').add(b'%').add(b'<').add(b'>');

type AtPath = (String, String, String, String);

/// On the origin of the API.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/{org}/{name}/resolve/{revision}/{*path}", get(resolve))
        .route("/api/resolve-cache/models/{org}/{name}/{revision}/{*path}", get(small))
}

/// On the origin of the storage.
pub fn storage() -> Router<Shared> {
    Router::new()
        .route("/objects/{org}/{name}/{hash}/{*path}", get(large))
        .route("/uploads/{hash}/{part}", put(write::upload))
        .layer(DefaultBodyLimit::disable())
}

/// Redirects to where the bytes are, which is another origin for large files.
async fn resolve(
    State(hub): State<Shared>,
    Path((org, name, revision, path)): Path<AtPath>,
    headers: HeaderMap,
) -> Answer<Response> {
    let name = format!("{org}/{name}");
    let (id, file) = find(&hub, &name, &revision, &path, &headers)?;
    let escaped = utf8_percent_encode(&path, NOT_IN_PATHS);
    let (status, location) = match &file.sha256 {
        Some(hash) => (302, format!("{}/objects/{name}/{hash}/{escaped}", hub.storage)),
        None => (307, format!("/api/resolve-cache/models/{name}/{id}/{escaped}")),
    };
    let status = StatusCode::from_u16(status).unwrap();
    let mut response = (status, format!("Redirecting to {location}")).into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(&location));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert("x-repo-commit", value(&id));
    headers.insert("x-linked-size", value(&file.size.to_string()));
    headers.insert("x-linked-etag", value(&format!("\"{}\"", file.etag())));
    if let Some(xet) = &file.xet {
        let route = format!("{}/api/models/{name}/xet-read-token/{id}", hub.endpoint);
        headers.insert(header::LINK, value(&format!("<{route}>; rel=\"xet-auth\"")));
        headers.insert("x-xet-hash", value(xet));
        headers.insert("x-xet-refresh-route", value(&route));
    }
    Ok(response)
}

async fn small(
    State(hub): State<Shared>,
    Path((org, name, revision, path)): Path<AtPath>,
    headers: HeaderMap,
) -> Answer<Response> {
    let (id, file) = find(&hub, &format!("{org}/{name}"), &revision, &path, &headers)?;
    let mut response = bytes(&file.content, file.etag(), &headers);
    response.headers_mut().insert("x-repo-commit", value(&id));
    Ok(response)
}

/// A link to the storage is its own permission: like the real one it refuses a second.
async fn large(
    State(hub): State<Shared>,
    Path((_, _, hash, _)): Path<AtPath>,
    headers: HeaderMap,
) -> Answer<Response> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Refused::new(400, None, "Only one auth mechanism allowed"));
    }
    let content = hub.lock().objects.get(&hash).cloned();
    Ok(bytes(&content.ok_or_else(|| Refused::entry(&hash))?, &hash, &headers))
}

fn find(
    hub: &Shared,
    name: &str,
    revision: &str,
    path: &str,
    headers: &HeaderMap,
) -> Answer<(String, File)> {
    let kept = hub.lock();
    let repo = read(&kept, name, headers)?;
    let (id, commit) = repo.find(revision).ok_or_else(|| Refused::revision(revision))?;
    let file = commit.files.get(path).ok_or_else(|| Refused::entry(path))?;
    Ok((id, file.clone()))
}

/// `content`, or the range of it that is asked for.
pub fn bytes(content: &Bytes, etag: &str, headers: &HeaderMap) -> Response {
    let etag = format!("\"{etag}\"");
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let same =
        headers.get(header::IF_RANGE).is_none_or(|known| known.as_bytes() == etag.as_bytes());
    let range = asked.filter(|_| same).map(|range| within(range, content.len()));
    let size = content.len();
    let mut response = match range {
        Some(None) => {
            let refused = Refused::new(416, None, "Requested Range Not Satisfiable");
            let all = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return (all, refused).into_response();
        }
        Some(Some(range)) => {
            let said = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            let body = Body::from(content.slice(range));
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, said)], body).into_response()
        }
        None => Body::from(content.clone()).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, value(&etag));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// The part of `size` bytes that a Range header names; None if there is none.
pub fn within(range: &str, size: usize) -> Option<Range<usize>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (first, "") => first.parse().ok()?..size,
        (first, last) => first.parse().ok()?..(last.parse::<usize>().ok()? + 1).min(size),
    };
    (range.start < range.end).then_some(range)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap()
}
