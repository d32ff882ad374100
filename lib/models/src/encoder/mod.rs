//! Encoders: tokens of a sequence to their hidden states, and to one embedding of the sequence.
//!
//! Sequences are packed one after another into rows, without padding. Shapes are [1, rows, size]
//! unless said otherwise.

pub mod bert;
mod dense;
mod encode;
pub mod head;
pub mod pooling;
pub mod sentence;

pub use encode::Encoder;
