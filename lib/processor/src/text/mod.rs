//! Text to tokens and back: the chat template, the tokenizer, the detokenizer, stop strings.

mod byte_level;
pub mod detokenizer;
mod pieces;
pub mod stop;
pub mod template;
pub mod tokenizer;
pub mod whisper;
