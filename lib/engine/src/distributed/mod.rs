//! One model on several processes or machines, by MLX's own backends: a ring over TCP, JACCL.
//!
//! Each rank holds a part of the model: a share of every layer, or a stage of a pipeline of layers.
//! Rank 0 leads: it has the sequences and samples the tokens. Before each pass it sends the followers,
//! over TCP connections, which sequences advance by which tokens, and they do the same pass with their
//! parts. Tensors between ranks are sent by MLX.

mod follow;
mod lead;
mod partition;
mod rank_config;
mod wire;

pub use follow::follow;
pub use lead::{Group, Watch};
pub use rank_config::RankConfig;
