//! Part of a model that a rank holds in distributed inference.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Way to divide a model among ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Tensor parallelism: every rank holds some heads of each attention layer and some inner
    /// elements of each feed-forward layer; ranks compute together and sum their outputs twice a
    /// layer.
    Tensor,
    /// Pipeline parallelism: every rank holds some layers; one rank computes at a time, and a
    /// rank's share can fit its memory.
    Pipeline,
}

impl Split {
    /// All variants, with their names.
    pub const ALL: [(Split, &str); 2] = [(Split::Tensor, "tensor"), (Split::Pipeline, "pipeline")];
}

/// Part of a model that a rank holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Share of every layer.
    Share(Share),
    /// Some layers.
    Stage(Stage),
}

/// Layers `first..end` of a pipeline; rank 0 has the last layers and the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Rank that holds the layers.
    pub rank: usize,
    /// First layer of the rank.
    pub first: usize,
    /// Layer after the last one of the rank.
    pub end: usize,
    /// Layers of the model.
    pub layers: usize,
}

impl Part {
    /// Bytes that the part needs, of `bytes` that all layers need.
    pub fn of(&self, bytes: u64) -> u64 {
        match self {
            Part::Share(share) => bytes.div_ceil(share.size as u64),
            Part::Stage(Stage { first, end, layers, .. }) => {
                bytes.saturating_mul((end - first) as u64) / (*layers).max(1) as u64
            }
        }
    }

    /// Rank that sends hidden vectors to this one, and rank that receives them.
    pub fn edges(&self) -> [Option<usize>; 2] {
        match *self {
            Part::Share(_) => [None, None],
            Part::Stage(Stage { rank, first, .. }) => {
                [(first > 0).then_some(rank + 1), rank.checked_sub(1)]
            }
        }
    }

    /// Description for people.
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

/// Share of every layer in tensor parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Rank that holds the share.
    pub rank: usize,
    /// Number of ranks.
    pub size: usize,
}

impl Share {
    /// Range of this rank among `count` elements, which are divided in units of `lot`; `None` if
    /// they are not a multiple of it, or too few for all ranks.
    pub fn of(self, count: usize, lot: usize) -> Option<Range<usize>> {
        let lots = count / lot;
        let start = |rank: usize| rank * lots / self.size * lot;
        let whole = count.is_multiple_of(lot) && lots >= self.size;
        whole.then(|| start(self.rank)..start(self.rank + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_all_there_is_in_whole_lots_and_none_is_empty() {
        let all = |size, count, lot| -> Option<Vec<Range<usize>>> {
            (0..size).map(|rank| Share { rank, size }.of(count, lot)).collect()
        };
        assert_eq!(all(2, 3, 1), Some(vec![0..1, 1..3]));
        assert_eq!(all(2, 192, 64), Some(vec![0..64, 64..192]));
        assert_eq!(all(3, 2, 1), None);
        assert_eq!(all(2, 100, 64), None);
    }
}
