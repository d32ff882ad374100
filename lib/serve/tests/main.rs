//! The server as clients see it, over an engine that answers from a script.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod agents;
mod audio;
mod backend;
mod chat;
mod completions;
mod messages;
mod middleware;
mod responses;
mod search;
mod server;
