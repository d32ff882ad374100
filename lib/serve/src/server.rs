//! The server's loop: accepts connections, serves HTTP/1.1 on them, and shuts down gracefully.

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

use crate::idle::{Connection, IdleConnections};
use crate::routes::router;
use crate::state::{App, Times};

/// Number of threads of the runtime.
const THREADS: usize = 2;

/// Largest size of the head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Interval between two checks whether to stop.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Time for clients to read the error that ends their response when the grace period is over.
const ABORT_TIME: Duration = Duration::from_millis(500);

/// Pause after a connection cannot be accepted, as when too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(2);

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// A TCP socket.
    Tcp(net::TcpListener),
    /// A Unix domain socket.
    Unix(unix::UnixListener),
}

/// Serves connections to `sockets` until `stopped` returns true. Then further requests are refused,
/// and running ones have the time `grace` to end.
///
/// # Errors
/// If the runtime cannot start, or a socket cannot be used.
pub fn run(
    app: &Arc<App>,
    sockets: Vec<Socket>,
    grace: Duration,
    stopped: &dyn Fn() -> bool,
) -> Result<()> {
    let failed = |e: io::Error| Error::new(Kind::Execution, "", e.to_string());
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(THREADS).enable_all().build().map_err(failed)?;
    let served = runtime.block_on(serve(app, sockets, grace, stopped)).map_err(failed);
    // Tasks that still run are dropped, which cancels their requests in the engine.
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
    let permits = Arc::new(Semaphore::new(app.settings.max_connections));
    let idle = Arc::new(IdleConnections::default());
    let mut acceptors = JoinSet::new();
    for socket in sockets {
        let acceptor = Acceptor {
            permits: permits.clone(),
            idle: idle.clone(),
            router: router(app),
            graceful: graceful.clone(),
            times: app.settings.times,
        };
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                acceptors.spawn(accept_tcp(TcpListener::from_std(listener)?, acceptor));
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                acceptors.spawn(accept_unix(UnixListener::from_std(listener)?, acceptor));
            }
        }
    }
    while !stopped() {
        sleep(STOP_INTERVAL).await;
    }
    app.close();
    acceptors.shutdown().await;
    if let Some(graceful) = Arc::into_inner(graceful) {
        let mut done = pin!(graceful.shutdown());
        if timeout(grace, &mut done).await.is_err() {
            app.abort();
            // Connections whose clients do not read the error in time are cut off.
            let _ = timeout(ABORT_TIME, done).await;
        }
    }
    Ok(())
}

/// The context of a socket's accept loop, which serves the socket's connections.
struct Acceptor {
    /// Permits of connections, of which each connection holds one.
    permits: Arc<Semaphore>,
    idle: Arc<IdleConnections>,
    router: Router,
    graceful: Arc<GracefulShutdown>,
    times: Times,
}

async fn accept_tcp(listener: TcpListener, acceptor: Acceptor) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Nagle's algorithm would delay tokens; a connection that keeps it works too.
                let _ = stream.set_nodelay(true);
                acceptor.serve(stream).await;
            }
            Err(e) => acceptor.recover(&e).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, acceptor: Acceptor) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => acceptor.serve(stream).await,
            Err(e) => acceptor.recover(&e).await,
        }
    }
}

impl Acceptor {
    /// Serves a connection on a task of its own, once there is a permit for it.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Some(permit) = self.permit().await else { return };
        let connection = Connection::new(&self.idle);
        let (client, router) = (connection.clone(), TowerToHyperService::new(self.router.clone()));
        let service = service_fn(move |request: Request<Incoming>| {
            let exchange = client.clone().exchange();
            let response = router.call(request.map(|body| client.clone().request(body)));
            async move {
                let response: Response<Body> = response.await?;
                Ok::<_, Infallible>(response.map(|body| exchange.response(body)))
            }
        });
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.times.write));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.times.head)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let served = self.graceful.watch(served);
        tokio::spawn(async move {
            tokio::select! {
                // A connection that the client closes is not a failure of the server.
                _ = served => {}
                () = connection.closed() => {}
            }
            // An idle connection always has a permit to give back, so it leaves the queue first.
            drop(connection);
            drop(permit);
        });
    }

    /// A permit for a connection. Closes the oldest idle connection if there is no permit; waits
    /// while all connections are active.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return Some(permit);
            }
            let closed = self.idle.close_oldest();
            tokio::select! {
                permit = self.permits.clone().acquire_owned() => return permit.ok(),
                () = self.idle.added(), if !closed => {}
            }
        }
    }

    /// Pauses after a connection could not be accepted, and closes an idle one, which frees a file.
    async fn recover(&self, e: &io::Error) {
        if e.kind() != io::ErrorKind::ConnectionAborted {
            self.idle.close_oldest();
            sleep(ACCEPT_PAUSE).await;
        }
    }
}
