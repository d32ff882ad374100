//! Pushing to a Hub on this machine: what arrives, what is left alone, and what goes wrong.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod changes;
mod env;
mod refusals;
