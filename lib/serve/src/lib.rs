//! An HTTP server for models, in the APIs of OpenAI and Anthropic, over an
//! [`Engine`](mlxk_processor::Engine).
//!
//! Data flows one way: an API parses a body into a job, the job's requests go to the engine, and
//! the API formats the events that the engine sends back. The server does not know how models run,
//! reads no environment variable, prints nothing and never exits.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod anthropic;
mod auth;
mod body;
mod embed_backend;
mod error;
mod fields;
mod format;
mod forward;
mod handler;
mod held;
mod hints;
mod idle;
mod job;
mod log;
mod metrics;
mod middleware;
mod omitted;
mod openai;
mod reply;
mod request_id;
mod request_metrics;
mod routes;
mod search;
mod server;
mod state;

pub use auth::Key;
pub use embed_backend::EmbedBackend;
pub use log::{Entry, Level, Log};
pub use routes::router;
pub use server::{Socket, run};
pub use state::{App, EmbedOnly, Settings, Times};
