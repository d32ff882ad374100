//! How files come into a Xet storage: objects of chunks first, then a list of what files are made of.
//!
//! The formats are those of https://huggingface.co/docs/xet. Of what came, the content is kept.

use std::io::Read;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use lz4_flex::frame::FrameDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Shared;
use crate::access::{self, Answer, Refused};
use crate::repo::{Kept, hex};
use crate::xet;

/// Bytes of an entry of a list; every kind has as many.
const ENTRY: usize = 48;

/// In the flags of a file: that as many entries follow as there are, to prove that one has them all,
/// and that one follows with its SHA-256.
const PROVEN: u32 = 1 << 31;
const DIGEST: u32 = 1 << 30;

/// On the origin of the API.
pub fn routes() -> Router<Shared> {
    Router::new().route("/api/models/{org}/{name}/xet-write-token/{revision}", get(ticket))
}

/// On the origin of the storage.
pub fn storage() -> Router<Shared> {
    Router::new()
        .route("/v1/xorbs/default/{hash}", post(xorb))
        .route("/v1/shards", post(shard))
        .layer(DefaultBodyLimit::disable())
}

async fn ticket(
    State(hub): State<Shared>,
    Path((org, name, _)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer<Response> {
    access::write(&mut hub.lock(), &format!("{org}/{name}"), &headers)?;
    Ok(xet::entrance(&hub))
}

/// Takes an object.
async fn xorb(
    State(hub): State<Shared>,
    Path(hash): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    xet::shown(&headers)?;
    let chunks = chunks(&body).ok_or_else(|| bad("a chunk cannot be read"))?;
    let known = hub.lock().deposits.insert(hash, chunks).is_some();
    Ok(Json(json!({"was_inserted": !known})))
}

/// Takes a list, and makes the files whole that it names.
async fn shard(State(hub): State<Shared>, headers: HeaderMap, body: Bytes) -> Answer<Json<Value>> {
    xet::shown(&headers)?;
    let mut kept = hub.lock();
    let files = files(&body).ok_or_else(|| bad("the list cannot be read"))?;
    for segments in files {
        let content = joined(&kept, &segments).ok_or_else(|| bad("a chunk is missing"))?;
        kept.objects.insert(hex(&Sha256::digest(&content)), content.into());
    }
    Ok(Json(json!({"result": 1})))
}

/// The content of the chunks of an object: each behind eight bytes that say how long it is and how
/// it is packed. What follows them, if anything, begins otherwise.
fn chunks(mut body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut chunks = Vec::new();
    while let Some(([0, a, b, c, packing, d, e, f], rest)) = body.split_first_chunk() {
        let length = |bytes: [u8; 3]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
        let (packed, rest) = rest.split_at_checked(length([*a, *b, *c]) as usize)?;
        let content = match packing {
            0 => packed.to_vec(),
            1 => inflate(packed)?,
            2 => ungroup(&inflate(packed)?),
            _ => return None,
        };
        (content.len() == length([*d, *e, *f]) as usize).then(|| chunks.push(content))?;
        body = rest;
    }
    Some(chunks)
}

fn inflate(packed: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    FrameDecoder::new(packed).read_to_end(&mut content).ok()?;
    Some(content)
}

/// Undoes what brings every fourth byte together.
fn ungroup(grouped: &[u8]) -> Vec<u8> {
    let places = (0..4).flat_map(|place| (place..grouped.len()).step_by(4));
    let mut content = vec![0; grouped.len()];
    places.zip(grouped).for_each(|(place, byte)| content[place] = *byte);
    content
}

/// Some chunks of an object, and how many bytes they are.
struct Segment {
    object: String,
    first: usize,
    end: usize,
    bytes: usize,
}

/// The segments of each file that a list names.
fn files(list: &[u8]) -> Option<Vec<Vec<Segment>>> {
    let (_, mut rest) = list.split_first_chunk::<ENTRY>()?;
    let mut files = Vec::new();
    loop {
        let head;
        (head, rest) = rest.split_first_chunk::<ENTRY>()?;
        if head.starts_with(&[0xff; 32]) {
            return Some(files);
        }
        let (flags, count) = (number(head, 32) as u32, number(head, 36));
        let segments;
        (segments, rest) = rest.split_at_checked(count * ENTRY)?;
        files.push(segments.chunks_exact(ENTRY).map(segment).collect());
        let proofs = if flags & PROVEN == 0 { 0 } else { count };
        let others = proofs + usize::from(flags & DIGEST != 0);
        rest = rest.get(others * ENTRY..)?;
    }
}

fn segment(entry: &[u8]) -> Segment {
    // A hash is written as four numbers.
    let words = entry[..32].chunks_exact(8).map(|word| word.iter().rev().copied());
    let object = hex(&words.flatten().collect::<Vec<u8>>());
    Segment { object, bytes: number(entry, 36), first: number(entry, 40), end: number(entry, 44) }
}

fn number(entry: &[u8], at: usize) -> usize {
    entry[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte))
}

fn joined(kept: &Kept, segments: &[Segment]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    for Segment { object, first, end, bytes } in segments {
        let before = content.len();
        kept.deposits
            .get(object)?
            .get(*first..*end)?
            .iter()
            .for_each(|chunk| content.extend(chunk));
        (content.len() - before == *bytes).then_some(())?;
    }
    Some(content)
}

fn bad(reason: &str) -> Refused {
    Refused::new(400, None, reason)
}
