//! Configuration of a process as one of the ranks of a model.

use std::net::SocketAddr;

use mlxk_core::{Error, Kind};

/// Configuration of a process as one of the ranks of a model.
#[derive(Clone, Debug)]
pub struct RankConfig {
    /// Rank of this process, from 0.
    pub rank: usize,
    /// Number of ranks.
    pub size: usize,
    /// Address at which rank 0 listens.
    pub first: SocketAddr,
    /// MLX backend that sends tensors between ranks, as MLX names it.
    pub backend: &'static str,
    /// True if this process computes on a CPU.
    pub on_cpu: bool,
}

/// Error of a rank that ended, or whose connection did.
pub fn gone(rank: usize) -> Error {
    Error::new(Kind::Execution, "", format!("rank {rank} has gone"))
}
