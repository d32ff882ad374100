//! What a rank has of a model that several ranks run together.

use std::ops::Range;

use serde::{Deserialize, Serialize};

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

/// Which share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which rank's.
    pub rank: usize,
    /// In how many it is shared.
    pub size: usize,
}

impl Share {
    /// Its part of `count` things that stay together in lots of `lot`; none if some rank would have
    /// none.
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
