//! Moving models between the Hub and this machine: the one crate with a network client.
//!
//! Blocking calls on threads, no async: a transfer reports [`Event`]s as it goes, and asks the
//! [`Hub`] whether it shall end. Nothing here reads the environment, prints, or exits.
//!
//! The crate hf-hub (1.0) is not below it, since it lacks what this one is for: it begins a file anew
//! after a failure, brings it over one connection, gives it its name without a look at its size or
//! digest, and needs an async runtime.

pub mod cache;
pub mod chunk;
pub mod client;
pub mod clone;
pub mod event;
pub mod flow;
pub mod listing;
pub mod names;
pub mod part;
pub mod patience;
pub mod pull;
pub mod push;
pub mod refusal;
pub mod stream;
pub mod transfer;
pub mod xet;

pub use client::Hub;
pub use event::Event;
pub use listing::{Listing, RemoteFile};
