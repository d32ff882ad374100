//! Pulls and clones from a test Hub, also from one that misbehaves.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod cache;
mod clone;
mod env;
mod faults;
mod proxies;
mod refusals;
mod xet;
