//! The API of Anthropic: messages.

mod format;
pub mod messages;
