//! The API of Anthropic: messages.

mod blocks;
mod format;
pub mod messages;
mod tools;
