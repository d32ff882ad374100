//! What clients see of the server, over an engine that answers by a script.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod chat;
mod completions;
mod messages;
mod middleware;
mod responses;
mod server;
