//! Idle connections: those whose clients have yet to send a whole request. When the server has too
//! many connections, the one that has been idle longest is closed. nginx drains its connections
//! that wait for the head of a request in the same way.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::Notify;

/// The idle connections of a server.
#[derive(Default)]
pub struct IdleConnections {
    queue: Mutex<Queue>,
    added: Notify,
}

#[derive(Default)]
struct Queue {
    /// The signal that closes each connection, by its number; the lowest has been idle longest.
    connections: BTreeMap<u64, Arc<Notify>>,
    /// Total number of connections added.
    added: u64,
}

impl IdleConnections {
    /// Closes the connection that has been idle longest. Returns false if there is none.
    pub fn close_oldest(&self) -> bool {
        let oldest = self.lock().connections.pop_first();
        oldest.inspect(|(_, close)| close.notify_one()).is_some()
    }

    /// Waits until another connection is idle.
    pub async fn added(&self) {
        self.added.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, which is idle until its client has sent a whole request, and again once the
/// response is written.
pub struct Connection {
    idle: Arc<IdleConnections>,
    close: Arc<Notify>,
    /// The connection's number in the queue while it is idle.
    number: Mutex<Option<u64>>,
}

impl Connection {
    /// A new connection, which joins the `idle` ones.
    pub fn new(idle: &Arc<IdleConnections>) -> Arc<Connection> {
        let (idle, close, number) = (idle.clone(), Arc::default(), Mutex::default());
        let connection = Connection { idle, close, number };
        connection.set_idle();
        Arc::new(connection)
    }

    /// Waits until the connection has to close.
    pub async fn closed(&self) {
        self.close.notified().await;
    }

    /// Wraps the body of a request: its end makes the connection active.
    pub fn request(self: Arc<Connection>, body: Incoming) -> Body {
        let body = RequestBody { body, connection: self };
        body.check_end();
        Body::new(body)
    }

    /// The exchange of one request and its response: its end makes the connection idle.
    pub fn exchange(self: Arc<Connection>) -> Exchange {
        Exchange(self)
    }

    fn set_idle(&self) {
        self.set_active();
        let mut queue = self.idle.lock();
        queue.added += 1;
        let number = queue.added;
        queue.connections.insert(number, self.close.clone());
        *self.number.lock().unwrap_or_else(PoisonError::into_inner) = Some(number);
        self.idle.added.notify_one();
    }

    fn set_active(&self) {
        let number = self.number.lock().unwrap_or_else(PoisonError::into_inner).take();
        number.and_then(|number| self.idle.lock().connections.remove(&number));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.set_active();
    }
}

/// The body of a request.
struct RequestBody {
    body: Incoming,
    connection: Arc<Connection>,
}

impl RequestBody {
    /// Makes the connection active if the body is complete.
    fn check_end(&self) {
        if self.body.is_end_stream() {
            self.connection.set_active();
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.check_end();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The exchange of one request and its response.
pub struct Exchange(Arc<Connection>);

impl Exchange {
    /// Wraps the body of the response, with whose end the exchange ends.
    pub fn response(self, body: Body) -> Body {
        Body::new(ResponseBody { body, _exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.set_idle();
    }
}

/// The body of a response.
struct ResponseBody {
    body: Body,
    _exchange: Exchange,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
