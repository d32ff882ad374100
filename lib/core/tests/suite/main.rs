//! The tests of the crate through its public functions, on models written into temporary directories.
#![allow(clippy::unwrap_used)] // helpers outside #[test] functions panic too

mod env;
mod model;

mod content_hash;
mod deletion;
mod describe;
mod health;
mod hostile;
mod names;
mod npz;
mod policy;
mod probe;
mod record;
mod reindex;
mod safetensors;
mod verify;
