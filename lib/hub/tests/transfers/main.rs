//! Transfers from a Hub that misbehaves: what comes, what stays, and what is never left behind.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod cache;
mod clone;
mod env;
mod faults;
mod refusals;
mod xet;
