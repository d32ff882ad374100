//! End-to-end tests of the programs, a file per tool and topic.
#![allow(clippy::unwrap_used)] // a test fails by panicking

mod badinput;
mod campaign;
mod chat;
mod clone;
mod completions;
mod convert;
mod distributed;
mod embed;
mod encoders;
mod env;
mod health;
mod interop;
mod layers;
mod ls;
mod man;
mod mlxk;
mod offline;
mod papers;
mod pipes;
mod pull;
mod push;
mod readme;
mod rm;
mod roundtrip;
mod run;
mod schema;
mod search;
mod serve;
mod show;
mod smollm2;
mod terminal;
