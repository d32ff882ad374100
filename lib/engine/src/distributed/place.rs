//! Place of a process among the ranks of a model.

use std::net::SocketAddr;

use mlxk_core::{Error, Kind};

/// Which of several processes this one is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its number.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// Where the others find rank 0.
    pub first: SocketAddr,
    /// MLX's name of what tensors go by.
    pub backend: &'static str,
    /// Whether it computes on a CPU.
    pub on_cpu: bool,
}

/// That a rank ended, or the way to it.
pub fn gone(rank: usize) -> Error {
    Error::new(Kind::Execution, "", format!("rank {rank} has gone"))
}
