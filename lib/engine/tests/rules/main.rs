//! Answers that follow rules, and the parts that rules are not for.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod calls;
mod harmony;
mod parts;
mod schemas;
mod wishful;
