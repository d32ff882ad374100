//! Scheduler of a server's models: loaded, asked side by side, and unloaded on one thread, which owns
//! them.
//!
//! [`Local`] is what the server sees: it understands requests, finds their models and makes them
//! ready (template, tokens, rules) on threads of their own, and hands them to the thread of the
//! models by channel. There requests wait in a queue, join the running batch of their model as soon
//! as there is room, and leave it when they are complete or nobody listens any more.

mod catalog;
pub mod distributed;
mod guard;
mod loaded;
mod local;
mod processors;
mod shared;
mod weigh;
mod worker;

pub use local::Local;
pub use shared::Bounds;
