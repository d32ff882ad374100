//! Everything between clients and tensors: requests become tokens, tokens become events. Nothing
//! here needs MLX.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

pub mod audio;
mod breakers;
mod cancel;
mod conversation;
mod defaults;
pub mod engine;
pub mod event;
mod fields;
mod form;
mod grammar;
pub mod image;
mod media;
mod parser;
mod processor;
pub mod request;
mod response;
pub mod sampling;
mod schema;
mod stack;
mod text;
mod token;
mod tools;
pub mod transcript;
mod weight;

pub use breakers::Breakers;
pub use conversation::Conversation;
pub use engine::Engine;
pub use event::Event;
pub use media::{Image, Media};
pub use parser::{Delta, Markers, SectionParser, ToolCall};
pub use processor::{Prepared, Processor};
pub use request::Request;
pub use response::Generation;
pub use sampling::Sampling;
pub use text::detokenizer::Detokenizer;
pub use text::template::Template;
pub use text::tokenizer::{Pair, Tokenizer};
pub use text::whisper::whisper as whisper_tokenizer;
pub use token::{Constraint, Token};
pub use transcript::language::CODES as WHISPER_LANGUAGES;
