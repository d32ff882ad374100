//! One model on several processes or machines, by MLX's own backends: a ring over TCP, JACCL.
//!
//! Each rank holds a [`Part`] of the model. Rank 0 has the texts, and chooses the tokens; before each
//! pass it tells the others, over lines of their own, which texts advance by which tokens
//! ([`line`]), and they do the same pass with their parts. What layers hand each other goes by MLX.

mod choose;
mod follow;
mod group;
mod lead;
mod line;
mod share;

use std::net::SocketAddr;

use mlxk_core::{Error, Kind};
use serde::{Deserialize, Serialize};

pub use follow::follow;
pub use group::{all_sum, receive_like, send};
pub use lead::{Elsewhere, Others, Party, Watch};
pub use share::{Share, experts, heads, inner};

/// How a model is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Every rank has some heads of each attention and some of the elements within each
    /// feed-forward layer: all ranks work at once, and add up what they have, twice a layer.
    Tensor,
    /// Every rank has some of the layers: one works at a time, and as much memory as a rank has is
    /// made use of.
    Pipeline,
}

impl Split {
    /// Both, and what they are called.
    pub const ALL: [(Split, &str); 2] = [(Split::Tensor, "tensor"), (Split::Pipeline, "pipeline")];
}

/// What a rank has of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Its share of every layer.
    Share(Share),
    /// Some of the layers.
    Stage(Stage),
}

/// Layers `first..end`; the last ones are rank 0's, which has the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Which rank's.
    pub rank: usize,
    /// Its first layer.
    pub first: usize,
    /// The layer after its last.
    pub end: usize,
    /// The layers of the model.
    pub layers: usize,
}

impl Part {
    /// What a rank needs of so many bytes that all layers need together.
    pub fn of(&self, bytes: u64) -> u64 {
        match self {
            Part::Share(share) => bytes.div_ceil(share.size as u64),
            Part::Stage(Stage { first, end, layers, .. }) => {
                bytes.saturating_mul((end - first) as u64) / (*layers).max(1) as u64
            }
        }
    }

    /// The ranks from which vectors come and to which they go.
    pub fn edges(&self) -> [Option<usize>; 2] {
        match *self {
            Part::Share(_) => [None, None],
            Part::Stage(Stage { rank, first, .. }) => {
                [(first > 0).then_some(rank + 1), rank.checked_sub(1)]
            }
        }
    }

    /// What a person calls it.
    pub fn describe(&self) -> String {
        match *self {
            Part::Share(Share { rank, size }) => {
                format!("share {} of {size} of every layer", rank + 1)
            }
            Part::Stage(Stage { first, end, layers, .. }) => {
                format!("layers {} to {end} of {layers}", first + 1)
            }
        }
    }
}

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
fn gone(rank: usize) -> Error {
    Error::new(Kind::Execution, "", format!("rank {rank} has gone"))
}
