//! A server for models: HTTP in the forms of OpenAI and Anthropic, over whatever [`Engine`] answers.
//!
//! The data goes one way: a body is read by its API (`chat`, `completions`) into a
//! [`Task`](task::Task), whose requests go to the engine in the suite's own form, and the events
//! that come back are worded by that API. Nothing here knows how a model runs, reads the
//! environment, prints, or exits.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod account;
mod answer;
mod app;
mod chat;
mod completions;
mod conversation;
mod engine;
mod fields;
mod guard;
mod heading;
mod log;
mod messages;
mod messages_wording;
mod meter;
mod models;
mod refusal;
mod responses;
mod responses_wording;
mod schema;
mod server;
mod silent;
mod task;
mod tools;
mod wording;

pub use app::{App, Settings, Times};
pub use engine::{Call, End, Engine, Event, Events, Figures, Likelihood, Listed, Reason, Request};
pub use guard::Key;
pub use log::{Entry, Level, Log};
pub use refusal::Refusal;
pub use server::{Socket, run};
