//! Scheduler of a server's models: one thread loads them, runs their batches concurrently, and
//! unloads them.
//!
//! [`Local`] is the interface for the server: it finds the models of requests, prepares them
//! (template, tokens, constraints) on threads of their own, and sends them to the thread of the
//! scheduler by channel. There requests wait in a queue, join the running batch of their model as soon
//! as there is room, and leave it when they are complete or their client has disconnected.

mod catalog;
mod costed;
pub mod distributed;
mod encoder;
mod encoding;
mod guard;
mod hearing;
mod loaded;
mod local;
mod processors;
mod resident;
mod shared;
mod speech;
mod work;
mod worker;

pub use catalog::id;
pub use local::Local;
pub use shared::Bounds;
