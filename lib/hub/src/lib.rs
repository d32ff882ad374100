//! Transfers of models between a Hugging Face Hub and this machine; the one crate with a network
//! client.
//!
//! All calls block and run on threads; there is no async runtime. A transfer reports each step as
//! a [`Progress`](mlxk_core::Progress) and asks the [`Hub`] client at every step whether it was cancelled. This crate does
//! not read the environment, print, or exit.
//!
//! The crate hf-hub (1.0) is not used: it restarts a file from zero after a failure, downloads it
//! over one connection, names it without checking size or digest, and needs an async runtime.

mod address;
pub mod backoff;
pub mod body;
pub mod cache;
pub mod chunk;
pub mod client;
pub mod clone;
pub mod error;
mod forward;
pub mod listing;
pub mod partial;
mod proxy;
pub mod pull;
pub mod push;
mod redirect;
pub mod safe_path;
pub mod stream;
pub mod transfer;
pub mod xet;

pub use client::Hub;
pub use listing::{Listing, RemoteFile};
