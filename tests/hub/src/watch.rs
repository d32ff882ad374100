//! What stands before every route: it notes the request, and spoils the answer where it is told to.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use http_body::Body as _;

use crate::Shared;
use crate::access::Refused;
use crate::fault::Fault;
use crate::log::{Entry, Origin};

/// Bytes that are handed to a connection at a time.
const PIECE: usize = 256 << 10;

/// `routes` behind the watch.
pub fn over(routes: Router<Shared>, hub: &Shared, origin: Origin) -> Router {
    let watch = middleware::from_fn_with_state((hub.clone(), origin), watch);
    let missing = || async { Refused::new(404, None, "No such route") };
    routes.fallback(missing).layer(watch).with_state(hub.clone())
}

async fn watch(
    State((hub, origin)): State<(Shared, Origin)>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().to_string(), request.uri().path().to_string());
    // Those who control the Hub are no clients of it.
    if path.starts_with("/_hub/") {
        return next.run(request).await;
    }
    let entry = hub.log.add(origin, &method, &path, request.headers());
    let faults = hub.faults.of(&method, &path);
    if faults.contains(&Fault::IgnoreRange) {
        request.headers_mut().remove(header::RANGE);
    }
    let response = match faults.iter().find_map(|fault| instead(fault, &path)) {
        Some(response) => response,
        None => next.run(request).await,
    };
    entry.status.store(response.status().as_u16().into(), Ordering::Relaxed);
    let response = if faults.contains(&Fault::Bom) { marked(response).await } else { response };
    let response = if faults.contains(&Fault::Gzip) { packed(response).await } else { response };
    spoil(response, &faults, entry)
}

/// The answer with a byte order mark before its body.
async fn marked(response: Response) -> Response {
    rewritten(response, |body| [b"\xef\xbb\xbf", body].concat()).await
}

/// The answer with its body compressed.
async fn packed(response: Response) -> Response {
    let mut response = rewritten(response, |body| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(body).unwrap();
        packed.finish().unwrap()
    })
    .await;
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

async fn rewritten(response: Response, rewrite: impl Fn(&[u8]) -> Vec<u8>) -> Response {
    let (mut parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(rewrite(&body)))
}

/// The answer that a fault gives in place of the real one.
fn instead(fault: &Fault, path: &str) -> Option<Response> {
    match fault {
        Fault::Status { code, retry_after } => {
            let status = StatusCode::from_u16(*code).unwrap();
            let mut response = (status, "{\"error\":\"as told\"}").into_response();
            if let Some(seconds) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            }
            Some(response)
        }
        Fault::RedirectLoop => {
            Some((StatusCode::FOUND, [(header::LOCATION, path.to_string())]).into_response())
        }
        Fault::Redirect { to } => {
            Some((StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response())
        }
        _ => None,
    }
}

fn spoil(response: Response, faults: &[Fault], entry: Arc<Entry>) -> Response {
    let (mut parts, body) = response.into_parts();
    let offset = offset(&parts.headers);
    if let Some(size) = body.size_hint().exact()
        && !parts.headers.contains_key(header::CONTENT_LENGTH)
    {
        parts.headers.insert(header::CONTENT_LENGTH, size.into());
    }
    for fault in faults {
        lie(fault, &mut parts.headers, &entry);
    }
    let bytes = body.into_data_stream();
    let pour = Pour { bytes, piece: Bytes::new(), sent: 0, offset, faults: faults.to_vec(), entry };
    let body = stream::unfold(pour, |mut pour| async { Some((pour.next().await?, pour)) });
    Response::from_parts(parts, Body::from_stream(body))
}

/// Where in the file a body begins.
fn offset(headers: &HeaderMap) -> u64 {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
    first.and_then(|first| first.parse().ok()).unwrap_or(0)
}

/// Changes what headers say.
fn lie(fault: &Fault, headers: &mut HeaderMap, entry: &Arc<Entry>) {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
    match fault {
        Fault::Longer { by } => headers.insert(header::CONTENT_LENGTH, (length + by).into()),
        Fault::Shorter { by } => {
            headers.insert(header::CONTENT_LENGTH, length.saturating_sub(*by).into())
        }
        Fault::NextPage => {
            let next = format!("<?cursor={}>; rel=\"next\"", Arc::as_ptr(entry).addr());
            headers.insert(header::LINK, HeaderValue::from_str(&next).unwrap())
        }
        Fault::NewEtag => {
            // The address of what is noted of a request is its own.
            let new = format!("\"{:064x}\"", Arc::as_ptr(entry).addr());
            let new = HeaderValue::from_str(&new).unwrap();
            headers.insert("x-linked-etag", new.clone());
            headers.insert(header::ETAG, new)
        }
        _ => None,
    };
}

/// A body on its way.
struct Pour {
    bytes: BodyDataStream,
    piece: Bytes,
    sent: u64,
    offset: u64,
    faults: Vec<Fault>,
    entry: Arc<Entry>,
}

impl Pour {
    async fn next(&mut self) -> Option<Result<Bytes, &'static str>> {
        while self.piece.is_empty() {
            match self.bytes.next().await {
                Some(piece) => self.piece = piece.ok()?,
                None if self.faults.iter().any(|fault| matches!(fault, Fault::Longer { .. })) => {
                    return cut().await;
                }
                None => return None,
            }
        }
        let mut piece = self.piece.clone();
        piece.truncate(PIECE);
        for fault in self.faults.clone() {
            match fault {
                Fault::Cut { after } if self.sent >= after => return cut().await,
                Fault::Stall { after } if self.sent >= after => std::future::pending().await,
                Fault::Cut { after } | Fault::Stall { after } => {
                    piece.truncate(usize::try_from(after - self.sent).unwrap_or(usize::MAX));
                }
                Fault::Slow { rate } => {
                    piece.truncate(usize::try_from(rate / 50).unwrap().max(1));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Fault::Corrupt { at } => piece = self.corrupt(piece, at),
                _ => {}
            }
        }
        self.piece = self.piece.split_off(piece.len());
        self.sent += piece.len() as u64;
        self.entry.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Some(Ok(piece))
    }

    fn corrupt(&self, piece: Bytes, at: u64) -> Bytes {
        let begin = self.offset + self.sent;
        match at.checked_sub(begin).and_then(|at| usize::try_from(at).ok()) {
            Some(at) if at < piece.len() => {
                let mut piece = BytesMut::from(&piece[..]);
                piece[at] ^= 0xff;
                piece.freeze()
            }
            _ => piece,
        }
    }
}

/// Closes the connection, when what was sent before has left.
async fn cut() -> Option<Result<Bytes, &'static str>> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Some(Err("cut as told"))
}
