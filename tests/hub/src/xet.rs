//! The storage of large files as Xet has it: tickets, lists of chunks, and the objects that hold those.
//!
//! A file is cut into chunks of one length, and so many of them make an object.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use lz4_flex::frame::FrameEncoder;
use serde_json::{Value, json};

use crate::Shared;
use crate::access::{Answer, Refused, read};
use crate::content;

/// Bytes of a chunk, and chunks of an object.
const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 24;

/// The chunks of an object, each behind its header.
pub type Object = Vec<Vec<u8>>;

/// What the storage is shown, and until when that is good.
const TOKEN: &str = "xet-token";
const EXPIRY: u64 = 4_000_000_000;

/// On the origin of the API.
pub fn routes() -> Router<Shared> {
    Router::new().route("/api/models/{org}/{name}/xet-read-token/{revision}", get(ticket))
}

/// On the origin of the storage.
pub fn storage() -> Router<Shared> {
    Router::new()
        .route("/v1/reconstructions/{hash}", get(recipe))
        .route("/xorbs/{hash}/{object}", get(object))
}

/// What a Xet storage knows content by; here that of its SHA-256, which it tells too.
pub fn hash(sha256: &str) -> String {
    sha256.chars().rev().collect()
}

async fn ticket(
    State(hub): State<Shared>,
    Path((org, name, _)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer<Response> {
    read(&hub.lock(), &format!("{org}/{name}"), &headers)?;
    Ok(entrance(&hub))
}

/// Where the storage is, and what it wants to be shown.
pub fn entrance(hub: &Shared) -> Response {
    // Clients read it from the body, or, as huggingface_hub does, from the headers.
    let headers = [
        ("x-xet-cas-url", hub.storage.clone()),
        ("x-xet-access-token", TOKEN.to_owned()),
        ("x-xet-token-expiration", EXPIRY.to_string()),
    ];
    let body = json!({"accessToken": TOKEN, "exp": EXPIRY, "casUrl": hub.storage});
    (headers, Json(body)).into_response()
}

/// Refuses who does not show what the storage wants to be shown.
pub fn shown(headers: &HeaderMap) -> Answer<()> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|token| token.to_str().ok());
    match shown == Some(&format!("Bearer {TOKEN}")) {
        true => Ok(()),
        false => Err(Refused::new(401, None, "Unauthorized")),
    }
}

async fn recipe(
    State(hub): State<Shared>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Answer<Response> {
    shown(&headers)?;
    let (objects, size) = find(&hub, &hash)?;
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let range = match asked {
        Some(asked) => content::within(asked, size),
        None => Some(0..size),
    };
    let Some(range) = range else {
        return Err(Refused::new(416, None, "Requested Range Not Satisfiable"));
    };
    Ok(Json(describe(&hub.storage, &hash, &objects, size, range)).into_response())
}

/// The chunks that `range` of the content touches.
fn describe(
    storage: &str,
    hash: &str,
    objects: &[Object],
    size: usize,
    range: Range<usize>,
) -> Value {
    let (first, end) = (range.start / CHUNK, range.end.div_ceil(CHUNK));
    let (mut terms, mut places) = (Vec::new(), serde_json::Map::new());
    let touched = first / CHUNKS..end.div_ceil(CHUNKS);
    for (number, packed) in objects.iter().enumerate().filter(|(n, _)| touched.contains(n)) {
        let begin = number * CHUNKS;
        let chunks = first.max(begin) - begin..end.min(begin + CHUNKS) - begin;
        let bytes = |chunks: &[Vec<u8>]| chunks.iter().map(Vec::len).sum::<usize>();
        let start = bytes(&packed[..chunks.start]);
        let length = bytes(&packed[chunks.clone()]);
        let unpacked = size.min((begin + chunks.end) * CHUNK) - (begin + chunks.start) * CHUNK;
        let object = format!("{}{number:08x}", &hash[..hash.len() - 8]);
        let span = json!({"start": chunks.start, "end": chunks.end});
        terms.push(json!({"hash": object, "unpacked_length": unpacked, "range": span}));
        let place = json!({"range": span, "url": format!("{storage}/xorbs/{hash}/{number}"),
            "url_range": {"start": start, "end": start + length - 1}});
        places.insert(object, json!([place]));
    }
    json!({"offset_into_first_range": range.start - first * CHUNK,
        "terms": terms, "fetch_info": places})
}

async fn object(
    State(hub): State<Shared>,
    Path((hash, number)): Path<(String, usize)>,
    headers: HeaderMap,
) -> Answer<Response> {
    if headers.contains_key(header::AUTHORIZATION) {
        return Err(Refused::new(400, None, "Only one auth mechanism allowed"));
    }
    let (objects, _) = find(&hub, &hash)?;
    let object = objects.get(number).ok_or_else(|| Refused::entry(&hash))?.concat();
    Ok(content::bytes(&object.into(), &hash, &headers))
}

/// The objects of a file, and its size.
fn find(hub: &Shared, xet: &str) -> Answer<(Arc<Vec<Object>>, usize)> {
    let mut kept = hub.lock();
    let objects = kept.packed(xet).ok_or_else(|| Refused::entry(xet))?;
    Ok((objects, kept.objects[&hash(xet)].len()))
}

/// Content as objects, their chunks packed in all ways in turn.
pub fn pack(content: &[u8]) -> Vec<Object> {
    let chunks: Vec<_> = content.chunks(CHUNK).collect();
    let framed = |(i, chunk): (usize, &&[u8])| framed(chunk, (i % 3) as u8);
    chunks.chunks(CHUNKS).map(|chunks| chunks.iter().enumerate().map(framed).collect()).collect()
}

fn framed(chunk: &[u8], packing: u8) -> Vec<u8> {
    let packed = match packing {
        0 => chunk.to_vec(),
        1 => deflate(chunk),
        _ => deflate(&group(chunk)),
    };
    let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    let ([a, b, c, _], [d, e, f, _]) = (length(&packed), length(chunk));
    [&[0, a, b, c, packing, d, e, f], &*packed].concat()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Every fourth byte from the first on, then from the second on, and so on.
fn group(bytes: &[u8]) -> Vec<u8> {
    (0..4).flat_map(|place| bytes.iter().skip(place).step_by(4).copied()).collect()
}
