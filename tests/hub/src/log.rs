//! Every request, and how much was sent in answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, HeaderName, header};
use serde::Serialize;

/// Which of the Hub's two origins a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The API.
    Api,
    /// The storage of large files.
    Storage,
}

/// A request and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// Where it came.
    pub origin: Origin,
    /// Its method.
    pub method: String,
    /// Its path as it was sent, without the query.
    pub path: String,
    /// Its Authorization header.
    pub authorization: Option<String>,
    /// Its Range header.
    pub range: Option<String>,
    /// Its User-Agent header.
    pub agent: Option<String>,
    /// The status of the answer; 0 before there is one.
    pub status: u64,
    /// Bytes of the answer's body that were handed to the connection.
    pub sent: u64,
}

/// The requests in the order of arrival.
#[derive(Default)]
pub struct Log(Mutex<Vec<Arc<Entry>>>);

/// A request while it is answered.
pub struct Entry {
    request: Request,
    pub status: AtomicU64,
    pub sent: AtomicU64,
}

impl Log {
    pub fn add(&self, origin: Origin, method: &str, path: &str, headers: &HeaderMap) -> Arc<Entry> {
        let header = |name: HeaderName| {
            headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let request = Request {
            origin,
            method: method.to_string(),
            path: path.to_string(),
            authorization: header(header::AUTHORIZATION),
            range: header(header::RANGE),
            agent: header(header::USER_AGENT),
            status: 0,
            sent: 0,
        };
        let entry = Arc::new(Entry { request, status: AtomicU64::new(0), sent: AtomicU64::new(0) });
        self.0.lock().unwrap().push(entry.clone());
        entry
    }

    pub fn requests(&self) -> Vec<Request> {
        self.0.lock().unwrap().iter().map(|entry| entry.so_far()).collect()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

impl Entry {
    fn so_far(&self) -> Request {
        let status = self.status.load(Ordering::Relaxed);
        Request { status, sent: self.sent.load(Ordering::Relaxed), ..self.request.clone() }
    }
}
