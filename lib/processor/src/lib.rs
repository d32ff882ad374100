//! What stands between people and tensors: a request becomes tokens, tokens become an answer.
//! Nothing here needs MLX.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod conversation;
mod defaults;
pub mod event;
mod fields;
mod grammar;
pub mod image;
mod options;
mod parser;
mod processor;
pub mod request;
mod response;
mod sampling;
mod sandbox;
mod text;
mod tools;

pub use conversation::Conversation;
pub use event::Event;
pub use parser::{Call, Marks, Piece, Reader};
pub use processor::{Prepared, Processor};
pub use request::Request;
pub use response::Generation;
pub use sampling::{Constraint, Logprobs, Sampling, Token};
pub use text::detokenizer::Detokenizer;
pub use text::template::Template;
pub use text::tokenizer::Tokenizer;
