//! The models of a server: loaded, asked side by side, and unloaded on one thread, which owns them.
//!
//! [`Local`] is what the server sees: it understands requests, finds their models and makes them
//! ready (template, tokens, rules) on threads of their own, and hands them to the thread of the
//! models ([`worker`]) by channel. There requests wait in a line, join the running batch of their
//! model as soon as there is room, and leave it when they are complete or nobody listens any more.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod catalogue;
mod desk;
mod distributed;
mod guard;
mod local;
mod processors;
mod worker;

pub use distributed::follow;
pub use local::{Bounds, Local};
