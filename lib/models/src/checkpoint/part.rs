//! Part of a model that a rank has, where several ranks run it together.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Way to take a model apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Each rank has some heads of each attention and some of the elements within each
    /// feed-forward layer: all ranks work at once, and add up what they have, twice a layer.
    Tensor,
    /// Each rank has some of the layers, in proportion to its memory; one rank works at a time.
    Pipeline,
}

impl Split {
    /// All ways, with their names.
    pub const ALL: [(Split, &str); 2] = [(Split::Tensor, "tensor"), (Split::Pipeline, "pipeline")];
}

/// Part of a model that a rank has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// A share of every layer.
    Share(Share),
    /// Some of the layers, whole.
    Stage(Stage),
}

/// Layers `first..end`; the last ones are rank 0's, which has the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Rank that has the layers.
    pub rank: usize,
    /// Number of the first layer.
    pub first: usize,
    /// Number of the layer after the last one.
    pub end: usize,
    /// Number of layers of the model.
    pub layers: usize,
}

impl Part {
    /// Ranks from which vectors come and to which they go.
    pub fn edges(&self) -> [Option<usize>; 2] {
        match *self {
            Part::Share(_) => [None, None],
            Part::Stage(Stage { rank, first, .. }) => {
                [(first > 0).then_some(rank + 1), rank.checked_sub(1)]
            }
        }
    }

    /// Description of the part for people.
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

/// Share of every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Rank that has the share.
    pub rank: usize,
    /// Number of shares.
    pub size: usize,
}

impl Share {
    /// Range of the share in `count` things that stay together in lots of `lot`; `None` if some rank
    /// would have nothing.
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
