//! The server at work: connections in, until it shall stop.

use std::io;
use std::net;
use std::os::unix::net as unix;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use mlxk_core::{Error, Kind, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use crate::app::{App, Times};

/// Threads that speak with clients.
const THREADS: usize = 2;

/// Connections at once.
const CONNECTIONS: usize = 1024;

/// Bytes of the head of a request.
const HEAD_BYTES: usize = 64 << 10;

/// Time between two looks whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Time to rest when no connection can be taken, as when too many files are open.
const REST: Duration = Duration::from_millis(50);

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
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut doors = JoinSet::new();
    for socket in sockets {
        let (room, graceful) = (room.clone(), graceful.clone());
        let door = Door { room, router: app.router(), graceful, times: app.settings.times };
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
        // Those that take longer are cut off.
        let _ = timeout(grace, graceful.shutdown()).await;
    }
    Ok(())
}

/// What a connection comes through.
struct Door {
    room: Arc<Semaphore>,
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
            Err(_) => sleep(REST).await,
        }
    }
}

async fn unix(listener: UnixListener, door: Door) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => door.open(stream).await,
            Err(_) => sleep(REST).await,
        }
    }
}

impl Door {
    /// Serves a connection on a task of its own; waits while there are too many.
    async fn open(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Ok(place) = self.room.clone().acquire_owned().await else { return };
        let service = TowerToHyperService::new(self.router.clone());
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.times.write));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.times.head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let watched = self.graceful.watch(connection);
        tokio::spawn(async move {
            // A client that breaks off is no failure of the server.
            let _ = watched.await;
            drop(place);
        });
    }
}
