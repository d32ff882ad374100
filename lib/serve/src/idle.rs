//! Clients that say nothing: of the connections that wait for a whole request, the one that has
//! waited longest makes room when there is none. (nginx drains those that wait for a head so.)

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::Error;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::sync::Notify;

/// The connections whose clients are silent.
#[derive(Default)]
pub struct Silent {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    /// How each is told to close, the longest waiting first.
    all: BTreeMap<u64, Arc<Notify>>,
    /// How many there have been.
    count: u64,
}

impl Silent {
    /// Has the one close that has waited longest; false if there is none.
    pub fn close_longest(&self) -> bool {
        let longest = self.lock().all.pop_first();
        longest.inspect(|(_, close)| close.notify_one()).is_some()
    }

    /// Waits for there to be one more.
    pub async fn more(&self) {
        self.more.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client, who is silent at first.
pub struct Peer {
    silent: Arc<Silent>,
    close: Arc<Notify>,
    /// Its turn among those that are silent.
    turn: Mutex<Option<u64>>,
}

impl Peer {
    /// One among `silent` ones.
    pub fn new(silent: &Arc<Silent>) -> Arc<Peer> {
        let peer = Peer { silent: silent.clone(), close: Arc::default(), turn: Mutex::default() };
        peer.waits();
        Arc::new(peer)
    }

    /// Waits until it has to make room.
    pub async fn closed(&self) {
        self.close.notified().await;
    }

    /// The body of a request, with whose end the client has spoken.
    pub fn sends(self: Arc<Peer>, body: Incoming) -> Body {
        let sent = Sent { body, peer: self };
        sent.listen();
        Body::new(sent)
    }

    /// What its request is answered with: with the end of that it is silent again.
    pub fn hears(self: Arc<Peer>) -> Hearing {
        Hearing(self)
    }

    fn waits(&self) {
        self.leaves();
        let mut waiting = self.silent.lock();
        waiting.count += 1;
        let turn = waiting.count;
        waiting.all.insert(turn, self.close.clone());
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = Some(turn);
        self.silent.more.notify_one();
    }

    fn leaves(&self) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
        turn.and_then(|turn| self.silent.lock().all.remove(&turn));
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.leaves();
    }
}

/// The body of a request.
struct Sent {
    body: Incoming,
    peer: Arc<Peer>,
}

impl Sent {
    fn listen(&self) {
        if self.body.is_end_stream() {
            self.peer.leaves();
        }
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.listen();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client whose request is being answered.
pub struct Hearing(Arc<Peer>);

impl Hearing {
    /// The body of the answer.
    pub fn told(self, body: Body) -> Body {
        Body::new(Told { body, _hearing: self })
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.0.waits();
    }
}

/// The body of an answer.
struct Told {
    body: Body,
    _hearing: Hearing,
}

impl HttpBody for Told {
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
