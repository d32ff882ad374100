//! Models: checkpoints, layers, the architectures made of them, and conversion.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

pub mod audio;
pub mod checkpoint;
pub mod config;
pub mod convert;
pub mod encoder;
pub mod language;
pub mod network;
pub mod nn;
pub mod registry;
pub mod sketch;
pub mod spec;
pub mod speech;
pub mod text;
pub mod vision;
