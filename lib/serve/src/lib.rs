//! A server for models: HTTP in the forms of OpenAI and Anthropic, over whatever [`Engine`] answers.
//!
//! The data goes one way: a body is read by its API (`chat`, `completions`) into a
//! [`Task`](job::Task), whose requests go to the engine in the suite's own form, and the events
//! that come back are worded by that API. Nothing here knows how a model runs, reads the
//! environment, prints, or exits.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod anthropic;
mod engine;
mod error;
mod fields;
mod format;
mod handler;
mod idle;
mod job;
mod log;
mod metrics;
mod middleware;
mod openai;
mod request_metrics;
mod routes;
mod server;

pub use engine::{Call, End, Engine, Event, Events, Figures, Likelihood, Listed, Reason, Request};
pub use error::Refusal;
pub use log::{Entry, Level, Log};
pub use middleware::Key;
pub use routes::{App, Settings, Times};
pub use server::{Socket, run};
