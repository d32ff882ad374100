//! A model Hub on this machine, for tests: what is put in is fetched and pushed as from the real one.
//!
//! It speaks the Hub's API as far as programs that move models use it, keeps everything in memory,
//! serves large files from a second origin as the real one does, from Xet storage too where it is told
//! to, and can be told to misbehave.
//!
//! ```
//! use mlxk_testhub::{Fault, Hub, Rule};
//!
//! let hub = Hub::start();
//! hub.repo("org/Model").file("config.json", "{}").file("model.safetensors", vec![0; 100_000]);
//! hub.fault(Rule::on("model.safetensors").times(1), Fault::Cut { after: 1000 });
//! let endpoint = hub.endpoint(); // what HF_ENDPOINT is set to
//! # assert!(endpoint.starts_with("http://127.0.0.1:"));
//! ```

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod access;
mod content;
mod control;
mod deposit;
mod fault;
mod log;
mod read;
mod repo;
mod watch;
mod write;
mod xet;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

pub use access::{OWNER, STRANGER};
pub use fault::{Fault, Rule};
pub use log::{Origin, Request};
pub use repo::Access;

use repo::State;

/// What every handler sees.
type Shared = Arc<State>;

/// A running Hub. It stops when dropped, in the middle of whatever it serves.
pub struct Hub {
    state: Shared,
    runtime: Option<Runtime>,
}

/// A repository of a [`Hub`], created when asked for; every change is a commit on `main`.
pub struct Repo<'a> {
    hub: &'a Hub,
    name: String,
}

impl Hub {
    /// A Hub without repositories, on free ports of the loopback interface.
    pub fn start() -> Hub {
        Hub::start_at(0)
    }

    /// As [`Hub::start`], the API on the port `port`.
    pub fn start_at(port: u16) -> Hub {
        let runtime = Runtime::new().unwrap();
        let (api, api_at) = runtime.block_on(listen(port));
        let (cdn, cdn_at) = runtime.block_on(listen(0));
        let state = Arc::new(State::new(
            format!("http://127.0.0.1:{}", api_at.port()),
            // Another host too: to some clients a port makes no other origin.
            format!("http://localhost:{}", cdn_at.port()),
        ));
        let hub = read::routes().merge(write::routes()).merge(content::routes());
        let hub = hub.merge(control::routes()).merge(xet::routes()).merge(deposit::routes());
        let storage = content::storage().merge(xet::storage()).merge(deposit::storage());
        runtime.spawn(serve(api, watch::over(hub, &state, Origin::Api)));
        runtime.spawn(serve(cdn, watch::over(storage, &state, Origin::Storage)));
        Hub { state, runtime: Some(runtime) }
    }

    /// The address of the API, without a slash at the end.
    pub fn endpoint(&self) -> &str {
        &self.state.endpoint
    }

    /// The address of the second origin, which keeps the large files and must never see a token.
    pub fn storage(&self) -> &str {
        &self.state.storage
    }

    /// The repository `org/name`, public unless [`Repo::access`] says otherwise.
    pub fn repo(&self, name: &str) -> Repo<'_> {
        self.state.create(name, Access::Public);
        Repo { hub: self, name: name.to_string() }
    }

    /// From now on requests that `rule` selects get `fault`.
    pub fn fault(&self, rule: Rule, fault: Fault) {
        self.state.faults.add(rule, fault);
    }

    /// No faults any more.
    pub fn behave(&self) {
        self.state.faults.clear();
    }

    /// At most so many entries in one answer that lists files.
    pub fn page(&self, entries: usize) {
        self.state.lock().page = entries;
    }

    /// Every request since the start or the last [`Hub::forget`], in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.state.log.requests()
    }

    /// Empties the list of requests.
    pub fn forget(&self) {
        self.state.log.clear();
    }

    /// Content bytes sent since, in answers to GET whose path contains `part`.
    pub fn served(&self, part: &str) -> u64 {
        let get = |r: &&Request| r.method == "GET" && r.path.contains(part);
        self.requests().iter().filter(get).map(|r| r.sent).sum()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Repo<'_> {
    /// Who may read it.
    pub fn access(&self, access: Access) -> &Self {
        self.state().set_access(&self.name, access);
        self
    }

    /// Puts a file, as whatever path: `../../x` too.
    pub fn file(&self, path: &str, content: impl Into<Bytes>) -> &Self {
        self.state().put(&self.name, path, content.into());
        self
    }

    /// Puts the file `disk`, mapped: it must not change while the Hub runs.
    pub fn file_on_disk(&self, path: &str, disk: &Path) -> &Self {
        self.file(path, repo::mapped(disk).unwrap())
    }

    /// Every answer says that the file `path` has `size` bytes.
    pub fn claim_size(&self, path: &str, size: u64) -> &Self {
        self.state().claim_size(&self.name, path, size);
        self
    }

    /// Large files are kept in Xet storage too, and announced so.
    pub fn keep_in_xet(&self) -> &Self {
        self.state().keep_in_xet(&self.name);
        self
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) -> &Self {
        self.state().remove(&self.name, path);
        self
    }

    /// A branch or tag at the newest commit of `main`.
    pub fn branch(&self, name: &str) -> &Self {
        self.state().branch(&self.name, name);
        self
    }

    /// The newest commit of `main`, 40 hexadecimal digits.
    pub fn commit(&self) -> String {
        self.commit_of("main").unwrap()
    }

    /// The commit that `revision` names.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        self.state().commit_of(&self.name, revision)
    }

    /// The files of a revision with their content, sorted by path.
    pub fn files(&self, revision: &str) -> Vec<(String, Bytes)> {
        self.state().files(&self.name, revision)
    }

    /// What a cache calls the content of each file of a revision, as `files` has them: the hash in
    /// its ETag.
    pub fn blobs(&self, revision: &str) -> Vec<(String, Bytes)> {
        self.state().blobs(&self.name, revision)
    }

    fn state(&self) -> &State {
        &self.hub.state
    }
}

async fn listen(port: u16) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

async fn serve(listener: TcpListener, routes: Router) {
    axum::serve(listener, routes).await.unwrap();
}
