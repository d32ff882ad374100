//! Pushes to a test Hub: changes that arrive, files that stay, and failures.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod changes;
mod env;
mod refusals;
