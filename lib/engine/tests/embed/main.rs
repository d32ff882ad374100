//! Embeddings and scores of pairs, on tiny models of each form.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod adapters;
mod cases;
mod families;
mod inputs;
mod listing;
#[path = "../model/mod.rs"]
mod model;
mod modules;
mod quantized;
mod rerank;
mod tables;
