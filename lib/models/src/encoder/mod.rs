//! Encoders: tokens of a sequence to their hidden states, and to one embedding of the sequence.
//!
//! Sequences are packed one after another into rows, without padding. Shapes are [1, rows, size]
//! unless said otherwise.

pub mod bert;
pub mod classifier;
mod dense;
pub mod distilbert;
mod encode;
pub mod gte;
pub mod head;
pub mod jina;
mod language;
pub mod modernbert;
pub mod mpnet;
pub mod nomic_bert;
pub mod pooling;
pub mod roberta;
mod score_head;
pub mod similarity;
pub mod static_embedding;
pub mod task;
mod transformer;

pub use encode::{Encoder, Packed, Words};
pub use language::{LanguageEncoder, LanguageOptions};
pub use score_head::ScoreHead;
