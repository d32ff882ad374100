//! How a model runs: the only crate that links MLX.

#![cfg_attr(test, allow(clippy::unwrap_used))] // a test fails by panicking

mod activation;
mod adapter;
mod admit;
mod attention;
mod batch;
mod cache;
mod cpu;
mod decode;
mod defaults;
mod detokenize;
mod eager;
mod fence;
mod fields;
pub mod generate;
mod kernels;
mod load;
mod matrix;
mod memory;
mod mixture;
mod mlx;
mod models;
mod nn;
mod options;
mod quantization;
mod quantized;
mod recurrent;
mod remember;
pub mod request;
mod reshape;
mod room;
mod rope;
mod sample;
mod stop;
mod template;
mod tokenizer;
mod weights;

pub use admit::admit;
pub use batch::Step;
pub use decode::{Model, Tokens};
pub use detokenize::Detokenizer;
pub use generate::{Event, Runner};
pub use load::{load, load_adapted, load_for};
pub use memory::estimate;
pub use mlx::on_cpu;
pub use remember::Memory;
pub use request::Request;
pub use sample::{Constraint, Logprobs, Sampling, Token};
pub use template::{Conversation, Template};
pub use tokenizer::Tokenizer;
