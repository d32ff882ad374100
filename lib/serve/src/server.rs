//! The server at work: connections in, until it shall stop.

use std::convert::Infallible;
use std::io;
use std::net;
use std::os::unix::net as unix;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use mlxk_core::{Error, Kind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use crate::idle::{Peer, Silent};
use crate::routes::{App, Times};

/// Threads that speak with clients.
const THREADS: usize = 2;

/// Bytes of the head of a request.
const HEAD_BYTES: usize = 64 << 10;

/// Time between two looks whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Time for clients to take what they are told when theirs is over.
const LAST: Duration = Duration::from_millis(500);

/// Time to rest when no connection can be taken, as when too many files are open.
const REST: Duration = Duration::from_millis(2);

/// Where clients connect.
#[derive(Debug)]
pub enum Socket {
    /// An address of the network.
    Tcp(net::TcpListener),
    /// A file of this machine.
    Unix(unix::UnixListener),
}

/// Serves what connects to `sockets` until `stopped` says so. Then no further request is taken, and
/// those that are being answered have the time `grace` to end.
///
/// # Errors
/// If the sockets cannot be used.
pub fn run(
    app: &Arc<App>,
    sockets: Vec<Socket>,
    grace: Duration,
    stopped: &dyn Fn() -> bool,
) -> Result<()> {
    let failed = |e: io::Error| Error::new(Kind::Execution, "", e.to_string());
    let mut threads = Builder::new_multi_thread();
    let runtime = threads.worker_threads(THREADS).enable_all().build().map_err(failed)?;
    let served = runtime.block_on(serve(app, sockets, grace, stopped)).map_err(failed);
    // What is still being answered is dropped, and the engine ends the work on it.
    runtime.shutdown_background();
    served
}

async fn serve(
    app: &Arc<App>,
    sockets: Vec<Socket>,
    grace: Duration,
    stopped: &dyn Fn() -> bool,
) -> io::Result<()> {
    let graceful = Arc::new(GracefulShutdown::new());
    let (room, silent) =
        (Arc::new(Semaphore::new(app.settings.max_connections)), Arc::new(Silent::default()));
    let mut doors = JoinSet::new();
    for socket in sockets {
        let (room, silent, graceful) = (room.clone(), silent.clone(), graceful.clone());
        let times = app.settings.times;
        let door = Door { room, silent, router: app.router(), graceful, times };
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let listener = TcpListener::from_std(listener)?;
                doors.spawn(tcp(listener, door));
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let listener = UnixListener::from_std(listener)?;
                doors.spawn(unix(listener, door));
            }
        }
    }
    while !stopped() {
        sleep(LOOK).await;
    }
    app.close();
    doors.shutdown().await;
    if let Some(graceful) = Arc::into_inner(graceful) {
        let mut done = pin!(graceful.shutdown());
        if timeout(grace, &mut done).await.is_err() {
            app.end();
            // Who does not take what is told is cut off.
            let _ = timeout(LAST, done).await;
        }
    }
    Ok(())
}

/// What a connection comes through.
struct Door {
    room: Arc<Semaphore>,
    silent: Arc<Silent>,
    router: Router,
    graceful: Arc<GracefulShutdown>,
    times: Times,
}

async fn tcp(listener: TcpListener, door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A token must not wait for the next one; without this it would only be late.
                let _ = stream.set_nodelay(true);
                door.open(stream).await;
            }
            Err(e) => door.closed(&e).await,
        }
    }
}

async fn unix(listener: UnixListener, door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => door.open(stream).await,
            Err(e) => door.closed(&e).await,
        }
    }
}

impl Door {
    /// A place for a connection: that of a client who is silent, if there is no other. Waits
    /// while all others speak.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = self.room.clone().try_acquire_owned() {
                return Some(place);
            }
            let made = self.silent.close_longest();
            tokio::select! {
                place = self.room.clone().acquire_owned() => return place.ok(),
                () = self.silent.more(), if !made => {}
            }
        }
    }

    /// Rests when no connection can be taken. Files that too many of them hold come free.
    async fn closed(&self, e: &io::Error) {
        if e.kind() != io::ErrorKind::ConnectionAborted {
            self.silent.close_longest();
            sleep(REST).await;
        }
    }

    /// Serves a connection on a task of its own.
    async fn open(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Some(place) = self.place().await else { return };
        let (peer, router) =
            (Peer::new(&self.silent), TowerToHyperService::new(self.router.clone()));
        let client = peer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let hearing = client.clone().hears();
            let answer = router.call(request.map(|body| client.clone().sends(body)));
            async move {
                let answer: Response<Body> = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| hearing.told(body)))
            }
        });
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.times.write));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.times.head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let watched = self.graceful.watch(connection);
        tokio::spawn(async move {
            tokio::select! {
                // A client that breaks off is no failure of the server.
                _ = watched => {}
                () = peer.closed() => {}
            }
            // Who is among the silent ones has a place to give.
            drop(peer);
            drop(place);
        });
    }
}
